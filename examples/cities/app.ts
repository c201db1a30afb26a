import {createServer, type IncomingMessage, type ServerResponse} from 'node:http';
import Database from 'better-sqlite3';
import {GuestBook} from './guest-book.ts';

// usage: app.js DATABASE NAME
// A small web application over one SQLite file. It prints its URL, and serves until SIGTERM.

const BUSY_MS = 2000;
const FORM_BYTES_MAX = 4096;

const [path = '', siteName = ''] = process.argv.slice(2);
const guestBook = new GuestBook(path, BUSY_MS);

function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, character => `&#${character.codePointAt(0)};`);
}

function page(): string {
  const rows = guestBook
    .latestVisits()
    .map(({id, city, country, visitor, at}) =>
      [String(id), `${city}, ${country}`, visitor, at].map(cell => `<td>${escapeHtml(cell)}</td>`).join(''),
    );
  return `<!doctype html><meta charset="utf-8"><title>Guest book of ${escapeHtml(siteName)}</title>
<h1>Guest book of cities, served by ${escapeHtml(siteName)}</h1>
<form action="/cities"><input name="q" placeholder="Paris"> <button>Find a city</button></form>
<form action="/visits" method="post"><input name="city" placeholder="number of a city"> <input name="visitor" placeholder="your name"> <button>Visit</button></form>
<table><tr>${rows.join('<tr>')}</table>\n`;
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, {'content-type': 'application/json'}).end(`${JSON.stringify(value)}\n`);
}

async function readForm(request: IncomingMessage): Promise<URLSearchParams> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > FORM_BYTES_MAX) break;
    chunks.push(chunk);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}

async function addVisit(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const form = await readForm(request);
  const city = Number(form.get('city'));
  if (!Number.isInteger(city) || city < 1 || city > guestBook.cityCount()) {
    sendJson(response, 400, {error: 'no such city'});
    return;
  }
  sendJson(response, 201, {visit: guestBook.addVisit(city, form.get('visitor') ?? 'anonymous')});
}

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /':
      response.writeHead(200, {'content-type': 'text/html; charset=utf-8'}).end(page());
      return;
    case 'GET /cities':
      sendJson(response, 200, guestBook.findCities(url.searchParams.get('q') ?? ''));
      return;
    case 'GET /visits':
      sendJson(response, 200, guestBook.latestVisits());
      return;
    case 'POST /visits':
      await addVisit(request, response);
      return;
    default:
      sendJson(response, 404, {error: 'no such page'});
  }
}

const server = createServer((request, response) => {
  answer(request, response).catch((error: unknown) => {
    const isRefused = error instanceof Database.SqliteError && /^SQLITE_(BUSY|READONLY)/.test(error.code);
    if (isRefused) sendJson(response, 503, {error: `this site takes no visits now (${error.code})`});
    else sendJson(response, 500, {error: String(error)});
  });
});
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  if (typeof address === 'object') console.log(`http://127.0.0.1:${address?.port}`);
});
process.once('SIGTERM', () => {
  server.close(() => guestBook.close());
  server.closeAllConnections();
});
