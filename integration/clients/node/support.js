// What the programs in this folder share. They run against AMQP_URL, print a line per check and "N passed, N failed" at
// the end, and exit with 1 if one failed. Queues and exchanges have names of their own and are removed.
'use strict';

const { execFileSync } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { setTimeout: sleep } = require('node:timers/promises');
const amqp = require('amqplib');

const URL = process.env.AMQP_URL || 'amqp://guest:guest@localhost:5672/';
const PATIENCE = 30_000; // ms for anything that must happen
const RUN = randomUUID().slice(0, 8);

const name = (hint) => `clients-js-${RUN}-${hint}`;

// waiter: wait() resolves when done() is true; the consumers call check(), there is no polling.
function waiter(done) {
  let resolve;
  const reached = new Promise((r) => { resolve = r; });
  return {
    check() { if (done()) resolve(); },
    wait() {
      if (done()) resolve();
      let timer;
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error('what should have been delivered was not')), PATIENCE);
      });
      return Promise.race([reached, late]).finally(() => clearTimeout(timer));
    },
  };
}

async function withConnection(f) {
  const connection = await amqp.connect(URL);
  try {
    await f(connection);
  } finally {
    await connection.close();
  }
}

// control does something with the broker: kill, start, block, unblock. Where nobody can, the check that asks is skipped.
function control(verb) {
  if (!process.env.AMQP_CTL) throw Object.assign(new Error('AMQP_CTL is not set'), { skip: true });
  if (verb) execFileSync(process.env.AMQP_CTL, [verb], { stdio: 'ignore', timeout: 4 * PATIENCE });
}

// retrying tries again, after a moment, for as long as PATIENCE.
async function retrying(f) {
  const deadline = Date.now() + PATIENCE;
  for (;;) {
    try {
      return await f();
    } catch (err) {
      if (Date.now() > deadline) throw err;
    }
    await sleep(50);
  }
}

async function run(checks) {
  let passed = 0;
  let failed = 0;
  for (const [check, f] of Object.entries(checks)) {
    try {
      await f();
      passed++;
      console.log(`ok   ${check}`);
    } catch (err) {
      if (err.skip) {
        console.log(`skip ${check}: ${err.message}`);
        continue;
      }
      failed++;
      console.log(`FAIL ${check}`);
      console.error(err);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}

module.exports = { PATIENCE, URL, control, name, retrying, run, waiter, withConnection };
