import {readdirSync, readFileSync} from 'node:fs';
import {join} from 'node:path';
import {checkFile} from './layers.ts';

// Run from the root of the checkout, as every npm script is.
const files = readdirSync('src', {recursive: true, encoding: 'utf8'}).filter(path => path.endsWith('.ts'));
const violations = files.sort().flatMap(path => checkFile(path, readFileSync(join('src', path), 'utf8')));
for (const violation of violations) console.error(violation);
console.log(`${files.length} files, ${violations.length} against the rules of scripts/layers.ts`);
if (violations.length > 0 || files.length === 0) process.exitCode = 1;
