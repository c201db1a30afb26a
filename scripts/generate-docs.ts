import {readFileSync, writeFileSync} from 'node:fs';
import {insertOptions, sampleConfig} from './documents.ts';

// Run from the root of the checkout, as every npm script is. A test tells when this has to be run again.
writeFileSync('README.md', insertOptions(readFileSync('README.md', 'utf8')));
writeFileSync('etc/ferrite.yml', sampleConfig());
