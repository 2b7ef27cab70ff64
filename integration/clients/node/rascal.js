// rascal: a topology from one configuration, publications, subscriptions with recovery strategies, redelivery limits.
'use strict';

const assert = require('node:assert/strict');
const { URL: Address } = require('node:url');
const { BrokerAsPromised, withDefaultConfig } = require('rascal');
const { control, name, run, waiter, URL } = require('./support');

// configuration is what an application has in a file.
function configuration() {
  const address = new Address(URL);
  return withDefaultConfig({
    vhosts: {
      '/': {
        connection: { url: address.toString(), retry: { min: 50, max: 100, factor: 1 } },
        exchanges: {
          [name('x')]: { type: 'topic', options: { durable: true } },
          [name('dead')]: { type: 'topic', options: { durable: true } },
        },
        queues: {
          [name('jobs')]: { options: { durable: true, arguments: { 'x-dead-letter-exchange': name('dead'), 'x-dead-letter-routing-key': 'dead' } } },
          [name('dead-letters')]: { options: { durable: true } },
        },
        bindings: [`${name('x')}[jobs.#] -> ${name('jobs')}`, `${name('dead')}[dead] -> ${name('dead-letters')}`],
        publications: { jobs: { exchange: name('x'), routingKey: 'jobs.new', confirm: true } },
        subscriptions: {
          jobs: { queue: name('jobs'), prefetch: 10, retry: { min: 50, max: 100, factor: 1 } },
          dead: { queue: name('dead-letters'), retry: { min: 50, max: 100, factor: 1 } },
        },
      },
    },
  });
}

async function withBroker(f) {
  const broker = await BrokerAsPromised.create(configuration());
  broker.on('error', () => {}); // of connections that were lost; they come back
  try {
    await f(broker);
    await broker.purge();
  } finally {
    await broker.nuke();
  }
}

// publish resolves when the broker has confirmed.
async function publish(broker, body) {
  const publication = await broker.publish('jobs', body);
  return new Promise((resolve, reject) => {
    publication.on('success', resolve).on('error', reject).on('return', () => reject(new Error('returned')));
  });
}

const checks = {
  async confirms() {
    await withBroker(async (broker) => {
      const got = [];
      const all = waiter(() => got.length === 200);
      const subscription = await broker.subscribe('jobs');
      subscription.on('message', (_message, content, ack) => { got.push(content.i); ack(); all.check(); });
      await Promise.all([...Array(200).keys()].map((i) => publish(broker, { i })));
      await all.wait();
      assert.deepEqual(got.sort((a, b) => a - b), [...Array(200).keys()]);
      await subscription.cancel();
    });
  },

  // A message that fails is republished with a count, and after three times it is a dead letter.
  async retry() {
    await withBroker(async (broker) => {
      let tries = 0;
      let dead;
      const died = waiter(() => dead);
      const subscription = await broker.subscribe('jobs');
      subscription.on('message', (_message, _content, ack) => {
        tries++;
        ack(new Error('as planned'), [{ strategy: 'republish', defer: 50, attempts: 3 }, { strategy: 'nack' }]);
      });
      const letters = await broker.subscribe('dead');
      letters.on('message', (message, _content, ack) => { dead = message; ack(); died.check(); });
      await publish(broker, { job: 1 });
      await died.wait();
      assert.equal(tries, 4);
      const death = dead.properties.headers['x-death'][0];
      assert.deepEqual([death.reason, death.queue, death.count], ['rejected', name('jobs'), 1]);
      await Promise.all([subscription.cancel(), letters.cancel()]);
    });
  },

  async recovery() {
    control(); // or it is skipped
    await withBroker(async (broker) => {
      const got = new Set();
      let sent = new Set();
      let all = { check() {} };
      const subscription = await broker.subscribe('jobs');
      subscription.on('error', () => {});
      subscription.on('message', (_message, content, ack) => { got.add(content.i); ack(); all.check(); });
      for (let round = 0; round < 3; round++) {
        sent = new Set();
        if (round > 0) {
          control('kill');
          control('start');
        }
        for (let i = 0; i < 100; i++) {
          const n = 100 * round + i;
          for (let done = false; !done;) {
            try {
              await publish(broker, { i: n });
              done = true;
            } catch { /* sent again */ }
          }
          sent.add(n);
        }
        all = waiter(() => [...sent].every((n) => got.has(n)));
        await all.wait();
      }
      await subscription.cancel();
    });
  },
};

run(checks);
