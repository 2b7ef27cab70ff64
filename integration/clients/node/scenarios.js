// The scenarios of integration/clients/README.md through amqplib, as its users write them; AMQPLIB names another version of it.
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const { readFileSync } = require('node:fs');
const { control, name, retrying, run, waiter, URL, PATIENCE } = require('./support');

const amqp = require(process.env.AMQPLIB || 'amqplib');

const PERSISTENT = { persistent: true };

async function connect(url = URL, options = {}) {
  const connection = await amqp.connect(url, options);
  connection.on('error', () => {}); // what fails rejects, too; without a listener the process would end
  return connection;
}

// withChannel runs f with a confirm channel of a connection of its own.
async function withChannel(f) {
  const connection = await connect();
  try {
    const channel = await connection.createConfirmChannel();
    channel.on('error', () => {});
    await f(channel, connection);
  } finally {
    await connection.close();
  }
}

// confirmed publishes one message and waits for its confirm.
const confirmed = (channel, exchange, key, body, options) => new Promise((resolve, reject) => {
  const closed = () => reject(new Error('the channel was closed'));
  channel.once('close', closed);
  channel.publish(exchange, key, Buffer.from(body), options, (err) => {
    channel.off('close', closed);
    if (err) reject(err);
    else resolve();
  });
});

// All kinds of headers that amqplib can send.
const HEADERS = {
  true: true, false: false, octet: -5, short: -300, int: 2 ** 31 - 1, big: -(2 ** 50), double: 1.25, text: 'grün 🐇', empty: '', null: null,
  bytes: Buffer.from([0, 255]), table: { in: { deeper: 1 } }, list: [1, 'two', [3], { four: 4 }],
  time: { '!': 'timestamp', value: 1700000000 }, decimal: { '!': 'decimal', value: { digits: 12345, places: 2 } }, float: { '!': 'float', value: 0.5 },
};

const checks = {
  // A loop around connect, as the applications that use amqplib by itself have it.
  async recovery() {
    control(); // or it is skipped
    const [queue, exchange] = [name('recovery'), name('recovery-x')];
    const got = new Set();
    let sent = new Set();
    const all = { check() {} };
    const declare = () => retrying(async () => {
      const connection = await connect();
      const channel = await connection.createConfirmChannel();
      channel.on('error', () => {});
      await channel.assertExchange(exchange, 'topic', { durable: true });
      await channel.assertQueue(queue, { durable: true });
      await channel.bindQueue(queue, exchange, 'a.#');
      await channel.assertQueue(name('recovery-mine'), { exclusive: true }); // of a dead connection it is free at once
      await channel.prefetch(10);
      await channel.consume(queue, (m) => {
        if (m === null) return; // cancelled, at the end
        got.add(m.content.toString());
        try {
          channel.ack(m);
        } catch { /* the channel is closed: it comes again */ }
        all.check();
      });
      return [connection, channel];
    });
    let [connection, channel] = await declare();
    let number = 0;
    for (let round = 0; round < 3; round++) {
      sent = new Set();
      for (let i = 0; i < 100; i++) {
        if (i === 50 && round < 2) {
          control('kill');
          control('start');
        }
        const body = String(++number);
        await retrying(async () => {
          try {
            await confirmed(channel, exchange, 'a.b', body, PERSISTENT);
          } catch (err) {
            [connection, channel] = await declare();
            throw err;
          }
        });
        sent.add(body);
      }
      const come = waiter(() => [...sent].every((body) => got.has(body)));
      all.check = come.check;
      await come.wait();
    }
    await channel.deleteQueue(queue);
    await channel.deleteExchange(exchange);
    await connection.close();
  },

  async confirms() {
    await withChannel(async (channel) => {
      const queue = name('confirms');
      await channel.assertQueue(queue, { durable: true });
      for (let i = 0; i < 1000; i++) channel.sendToQueue(queue, Buffer.from(String(i)), PERSISTENT);
      await channel.waitForConfirms();
      assert.equal((await channel.checkQueue(queue)).messageCount, 1000);
      await channel.deleteQueue(queue);
    });
  },

  async returns() {
    await withChannel(async (channel) => {
      const seen = [];
      channel.on('return', (m) => seen.push(`${m.fields.replyCode} ${m.fields.replyText} ${m.content}`));
      const { queue } = await channel.assertQueue('', { exclusive: true });
      await confirmed(channel, '', name('nobody'), 'lost', { mandatory: true });
      seen.push('ack lost');
      await confirmed(channel, '', queue, 'found', { mandatory: true });
      assert.deepEqual(seen, ['312 NO_ROUTE lost', 'ack lost']);
    });
  },

  async prefetch() {
    await withChannel(async (channel) => {
      const { queue } = await channel.assertQueue('', { exclusive: true });
      for (let i = 0; i < 10; i++) channel.sendToQueue(queue, Buffer.from(String(i)));
      await channel.waitForConfirms();
      await channel.prefetch(5);
      const got = [];
      let want = waiter(() => got.length >= 5);
      await channel.consume(queue, (m) => { got.push(m); want.check(); });
      const come = async (count) => {
        want = waiter(() => got.length >= count);
        await want.wait();
        await channel.checkQueue(queue); // what came beyond it would be here before this answer
        assert.equal(got.length, count);
      };
      await come(5);
      channel.ack(got[0]);
      await come(6);
      channel.ack(got[5], true);
      await come(10);
      assert.deepEqual(got.map((m) => m.content.toString()), [...Array(10).keys()].map(String));
    });
  },

  async retry() {
    await withChannel(async (channel) => {
      const [work, wait] = [name('work'), name('wait')];
      await channel.assertQueue(work, { exclusive: true, deadLetterExchange: '', deadLetterRoutingKey: wait });
      await channel.assertQueue(wait, { exclusive: true, messageTtl: 50, deadLetterExchange: '', deadLetterRoutingKey: work });
      const tries = [];
      const four = waiter(() => tries.length === 4);
      await channel.consume(work, (m) => {
        const death = (m.properties.headers['x-death'] || []).find((d) => d.queue === work && d.reason === 'rejected');
        const count = death ? death.count : 0;
        tries.push(count);
        if (count < 3) channel.reject(m, false);
        else channel.ack(m);
        four.check();
      });
      channel.sendToQueue(work, Buffer.from('job'));
      await four.wait();
      assert.deepEqual(tries, [0, 1, 2, 3]);
    });
  },

  async rpc() {
    await withChannel(async (server, connection) => {
      await server.assertQueue(name('rpc'), { exclusive: true });
      await server.consume(name('rpc'), (m) => {
        const { replyTo, correlationId } = m.properties;
        server.sendToQueue(replyTo, Buffer.from(String(2 * Number(m.content))), { correlationId });
      }, { noAck: true });
      const client = await connection.createChannel();
      const answers = {};
      const all = waiter(() => Object.keys(answers).length === 20);
      await client.consume('amq.rabbitmq.reply-to', (m) => {
        answers[m.properties.correlationId] = Number(m.content);
        all.check();
      }, { noAck: true });
      for (let i = 0; i < 20; i++) {
        client.sendToQueue(name('rpc'), Buffer.from(String(i)), { replyTo: 'amq.rabbitmq.reply-to', correlationId: String(i) });
      }
      await all.wait();
      for (let i = 0; i < 20; i++) assert.equal(answers[i], 2 * i);
    });
  },

  async blocked() {
    control();
    await withChannel(async (channel, connection) => {
      const notices = [];
      let told = waiter(() => notices.length === 1);
      connection.on('blocked', (reason) => { notices.push(`blocked: ${reason}`); told.check(); });
      connection.on('unblocked', () => { notices.push('unblocked'); told.check(); });
      const queue = name('blocked');
      await channel.assertQueue(queue, { durable: true });
      await confirmed(channel, '', queue, 'before', PERSISTENT);
      control('block');
      const other = await connect();
      try {
        const first = confirmed(channel, '', queue, 'first', PERSISTENT); // by which a broker may notice
        await told.wait();
        const held = confirmed(channel, '', queue, 'held', PERSISTENT);
        const consumer = await other.createChannel();
        const got = [];
        let come = waiter(() => got.length >= 1);
        await consumer.consume(queue, (m) => { got.push(m.content.toString()); come.check(); }, { noAck: true });
        await come.wait();
        told = waiter(() => notices.length === 2);
        come = waiter(() => got.length === 3);
        control('unblock');
        await told.wait();
        await Promise.all([first, held]);
        await come.wait();
        assert.deepEqual(got, ['before', 'first', 'held']);
        assert.deepEqual(notices, ['blocked: low on memory', 'unblocked']);
      } finally {
        control('unblock');
        await other.close();
      }
      await channel.deleteQueue(queue);
    });
  },

  async tls() {
    const file = (f) => readFileSync(`${process.env.BROKER_TLS}/${f}.pem`);
    if (!process.env.AMQPS_URL) throw Object.assign(new Error('AMQPS_URL is not set'), { skip: true });
    const secure = (certificate) => connect(process.env.AMQPS_URL, {
      ca: [file('ca')], timeout: PATIENCE, ...(certificate ? { cert: file(certificate), key: file(`${certificate}-key`) } : {}),
    });
    const connection = await secure('client');
    const channel = await connection.createChannel();
    const { queue } = await channel.assertQueue('', { exclusive: true });
    channel.sendToQueue(queue, Buffer.from('safe'));
    await retrying(async () => assert.equal((await channel.get(queue, { noAck: true })).content.toString(), 'safe'));
    await connection.close();
    await assert.rejects(secure('other'));
    await assert.rejects(secure());
  },

  async cancel() {
    await withChannel(async (channel, connection) => {
      await channel.assertQueue(name('gone'));
      let cancelled = false;
      const told = waiter(() => cancelled);
      await channel.consume(name('gone'), (m) => { if (m === null) { cancelled = true; told.check(); } });
      const other = await connection.createChannel();
      await other.deleteQueue(name('gone'));
      await told.wait();
    });
  },

  async bodies() {
    await withChannel(async (channel) => {
      const { queue } = await channel.assertQueue('', { exclusive: true });
      for (const size of [0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20]) {
        const body = randomBytes(size);
        await confirmed(channel, '', queue, body, {});
        const { content } = await channel.get(queue, { noAck: true });
        assert.equal(content.length, size);
        assert.ok(content.equals(body));
      }
    });
  },

  async headers() {
    await withChannel(async (channel) => {
      const { queue } = await channel.assertQueue('', { exclusive: true });
      const properties = {
        contentType: 'text/plain', contentEncoding: 'utf-8', deliveryMode: 2, priority: 9, correlationId: 'c', replyTo: 'r', expiration: '100000', messageId: 'm',
        timestamp: 1700000000, type: 't', userId: decodeURIComponent(new (require('node:url').URL)(URL).username), appId: 'a',
      };
      await confirmed(channel, '', queue, 'x', { headers: HEADERS, ...properties });
      const got = (await channel.get(queue, { noAck: true })).properties;
      const { float, ...others } = HEADERS; // comes back as a number
      assert.deepEqual({ ...got.headers }, { ...others, float: float.value });
      for (const [key, value] of Object.entries(properties)) assert.deepEqual([key, got[key]], [key, value]);
    });
  },
};

run(checks);
