// The six tutorial patterns through amqplib, as its users write them. See support.js for what it prints.
'use strict';

const assert = require('node:assert/strict');
const { randomUUID } = require('node:crypto');
const amqp = require('amqplib');
const { URL, name, run, waiter, withConnection } = require('./support');

const patterns = {
  async hello() {
    await withConnection(async (connection) => {
      const channel = await connection.createChannel();
      const queue = name('hello');
      await channel.assertQueue(queue, { exclusive: true, durable: false });
      const got = [];
      const w = waiter(() => got.length === 1);
      await channel.consume(queue, (m) => { got.push(m.content.toString()); w.check(); }, { noAck: true });
      channel.sendToQueue(queue, Buffer.from('Hello World!'));
      await w.wait();
      assert.deepEqual(got, ['Hello World!']);
    });
  },

  // Two workers with prefetch 1 and acks; one dies with its task, which the other one gets.
  async workQueue() {
    await withConnection(async (connection) => {
      const publisher = await connection.createConfirmChannel();
      const queue = name('tasks');
      await publisher.assertQueue(queue, { durable: true });
      try {
        const tasks = [...Array(6).keys()].map((i) => `task ${i}${'.'.repeat(i)}`);
        for (const task of tasks) {
          publisher.sendToQueue(queue, Buffer.from(task), { persistent: true, mandatory: true });
        }
        await publisher.waitForConfirms();

        const dying = await amqp.connect(URL);
        const dyingChannel = await dying.createChannel();
        await dyingChannel.prefetch(1);
        const lost = [];
        const taken = waiter(() => lost.length >= 1);
        await dyingChannel.consume(queue, (m) => { lost.push(m.content.toString()); taken.check(); });
        await taken.wait();
        assert.deepEqual(lost, [tasks[0]]);

        const channel = await connection.createChannel();
        await channel.prefetch(1);
        const done = [];
        const redelivered = [];
        const five = waiter(() => done.length >= 5);
        const six = waiter(() => done.length >= 6);
        await channel.consume(queue, (m) => {
          if (m === null) return; // cancelled by the broker: the queue was deleted
          assert.equal(m.properties.deliveryMode, 2);
          done.push(m.content.toString());
          if (m.fields.redelivered) redelivered.push(m.content.toString());
          channel.ack(m);
          five.check();
          six.check();
        });
        await five.wait();
        assert.deepEqual(done, tasks.slice(1));
        assert.deepEqual(lost, [tasks[0]]); // prefetch 1: no second one without an ack
        await dying.close();
        await six.wait();
        assert.equal(done[5], tasks[0]);
        assert.deepEqual(redelivered, [tasks[0]]);
      } finally {
        await publisher.deleteQueue(queue);
      }
    });
  },

  async publishSubscribe() {
    await withConnection(async (connection) => {
      const channel = await connection.createChannel();
      const exchange = name('logs');
      await channel.assertExchange(exchange, 'fanout', { durable: false, autoDelete: true });
      const received = [[], [], []];
      const w = waiter(() => received.every((got) => got.length === 10));
      for (const got of received) {
        const { queue } = await channel.assertQueue('', { exclusive: true });
        await channel.bindQueue(queue, exchange, '');
        await channel.consume(queue, (m) => { got.push(m.content.toString()); w.check(); }, { noAck: true });
      }
      const logs = [...Array(10).keys()].map((i) => `log ${i}`);
      for (const log of logs) channel.publish(exchange, '', Buffer.from(log));
      await w.wait();
      for (const got of received) assert.deepEqual(got, logs);
    });
  },

  async routing() {
    await withConnection(async (connection) => {
      const channel = await connection.createChannel();
      const exchange = name('direct_logs');
      await channel.assertExchange(exchange, 'direct', { durable: false, autoDelete: true });
      const received = [[], []];
      const w = waiter(() => received[0].length === 1 && received[1].length === 3);
      const severities = [['error'], ['info', 'warning', 'error']];
      for (const [i, keys] of severities.entries()) {
        const { queue } = await channel.assertQueue('', { exclusive: true });
        for (const key of keys) await channel.bindQueue(queue, exchange, key);
        await channel.consume(queue, (m) => { received[i].push(m.fields.routingKey); w.check(); }, { noAck: true });
      }
      for (const key of ['info', 'error', 'debug', 'warning']) channel.publish(exchange, key, Buffer.from(key));
      await w.wait();
      assert.deepEqual(received, [['error'], ['info', 'error', 'warning']]);
    });
  },

  async topics() {
    await withConnection(async (connection) => {
      const channel = await connection.createChannel();
      const exchange = name('topic_logs');
      await channel.assertExchange(exchange, 'topic', { durable: false, autoDelete: true });
      const want = {
        '#': ['kern.critical', 'kern.info', 'cron.critical', 'a.b.critical', 'kern'],
        'kern.*': ['kern.critical', 'kern.info'],
        '*.critical': ['kern.critical', 'cron.critical'],
        '#.critical': ['kern.critical', 'cron.critical', 'a.b.critical'],
        'kern.#': ['kern.critical', 'kern.info', 'kern'],
      };
      const received = {};
      const w = waiter(() => Object.keys(want).every((p) => received[p].length === want[p].length));
      for (const pattern of Object.keys(want)) {
        received[pattern] = [];
        const { queue } = await channel.assertQueue('', { exclusive: true });
        await channel.bindQueue(queue, exchange, pattern);
        await channel.consume(queue, (m) => { received[pattern].push(m.fields.routingKey); w.check(); }, { noAck: true });
      }
      for (const key of want['#']) channel.publish(exchange, key, Buffer.from(key));
      await w.wait();
      assert.deepEqual(received, want);
    });
  },

  async tutorialRpc() {
    const fib = (n) => (n < 2 ? n : fib(n - 1) + fib(n - 2));
    await withConnection(async (connection) => {
      const server = await connection.createChannel();
      const client = await connection.createChannel();
      const queue = name('rpc');
      await server.assertQueue(queue, { exclusive: true, durable: false });
      await server.prefetch(1);
      await server.consume(queue, (m) => {
        const answer = fib(Number(m.content.toString()));
        server.sendToQueue(m.properties.replyTo, Buffer.from(String(answer)), { correlationId: m.properties.correlationId });
        server.ack(m);
      });
      const want = {};
      const answers = {};
      const w = waiter(() => Object.keys(answers).length === 15);
      const callback = await client.assertQueue('', { exclusive: true });
      await client.consume(callback.queue, (m) => {
        answers[m.properties.correlationId] = Number(m.content.toString());
        w.check();
      }, { noAck: true });
      for (let n = 0; n < 15; n++) {
        const correlationId = randomUUID();
        want[correlationId] = fib(n);
        client.sendToQueue(queue, Buffer.from(String(n)), { correlationId, replyTo: callback.queue });
      }
      await w.wait();
      assert.deepEqual(answers, want);
    });
  },
};

run(patterns);
