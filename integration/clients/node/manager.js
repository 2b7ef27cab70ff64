// amqp-connection-manager: connections and channels that come back with what was set up on them.
'use strict';

const assert = require('node:assert/strict');
const manager = require('amqp-connection-manager');
const { control, name, retrying, run, waiter, URL, PATIENCE } = require('./support');

// withManager runs f with a connection that is made again whenever it is lost.
async function withManager(f) {
  const connection = manager.connect([URL], { reconnectTimeInSeconds: 0.1, heartbeatIntervalInSeconds: 5 });
  try {
    await f(connection);
  } finally {
    await connection.close();
  }
}

const checks = {
  async recovery() {
    control(); // or it is skipped
    await withManager(async (connection) => {
      const [queue, exchange] = [name('recovery'), name('recovery-x')];
      const got = new Set();
      let all = { check() {} };
      const channel = connection.createChannel({
        publishTimeout: PATIENCE,
        setup: async (ch) => {
          await ch.assertExchange(exchange, 'topic', { durable: true });
          await ch.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
          await ch.bindQueue(queue, exchange, 'a.#');
          await ch.assertQueue(name('recovery-mine'), { exclusive: true }); // of a dead connection it is free at once
        },
      });
      await channel.consume(queue, (m) => {
        got.add(m.content.toString());
        channel.ack(m);
        all.check();
      }, { prefetch: 10 });
      let number = 0;
      for (let round = 0; round < 3; round++) {
        const sent = new Set();
        const publishes = [];
        for (let i = 0; i < 100; i++) {
          if (i === 50 && round < 2) {
            control('kill');
            control('start');
          }
          const body = String(++number);
          sent.add(body);
          // What was under way when the connection was lost is refused, what comes later waits for the next one.
          publishes.push(retrying(() => channel.publish(exchange, 'a.b', Buffer.from(body), { persistent: true })));
        }
        all = waiter(() => [...sent].every((body) => got.has(body)));
        await Promise.all(publishes);
        await all.wait();
      }
      await channel.cancelAll();
      await channel.deleteQueue(queue);
      await channel.deleteExchange(exchange);
      await channel.close();
    });
  },

  // Publishes wait for the connection and are sent once, in order.
  async publishesWait() {
    await withManager(async (connection) => {
      const channel = connection.createChannel({ json: true, setup: (ch) => ch.assertQueue(name('waits'), { durable: true }) });
      await Promise.all([...Array(100).keys()].map((i) => channel.sendToQueue(name('waits'), { i })));
      const got = [];
      const all = waiter(() => got.length === 100);
      await channel.consume(name('waits'), (m) => { got.push(JSON.parse(m.content).i); all.check(); }, { noAck: true });
      await all.wait();
      assert.deepEqual(got, [...Array(100).keys()]);
      await channel.cancelAll();
      await channel.deleteQueue(name('waits'));
      await channel.close();
    });
  },

  async cancel() {
    await withManager(async (connection) => {
      const channel = connection.createChannel({ setup: (ch) => ch.assertQueue(name('gone')) });
      let cancelled = false;
      const told = waiter(() => cancelled);
      await channel.addSetup((ch) => ch.consume(name('gone'), (m) => { if (m === null) { cancelled = true; told.check(); } }));
      await channel.waitForConnect();
      const other = connection.createChannel();
      await other.waitForConnect();
      await other.deleteQueue(name('gone'));
      await told.wait();
      await Promise.all([channel.close(), other.close()]);
    });
  },
};

run(checks);
