// RabbitMQ's extensions of AMQP 0-9-1 through amqplib, as its users write them. See support.js for what it prints.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { randomUUID } = require('node:crypto');
const { name, run, waiter, withConnection } = require('./support');

// drain returns the bodies that a queue holds, oldest first.
async function drain(channel, queue) {
  const got = [];
  for (let m = await channel.get(queue, { noAck: true }); m; m = await channel.get(queue, { noAck: true })) {
    got.push(m.content.toString());
  }
  return got;
}

// withChannel runs f with a confirm channel of a connection of its own.
const withChannel = (f) => withConnection(async (connection) => {
  const channel = await connection.createConfirmChannel();
  channel.on('error', () => {}); // the call that failed rejects, too; without a listener the process would end
  await f(channel, connection);
});

const checks = {
  // Failed work waits in a queue with a time to live and comes back, until x-death says that it was tried three times.
  async retryLoop() {
    await withChannel(async (channel) => {
      const [work, retry] = [name('work'), name('retry')];
      await channel.assertQueue(work, { exclusive: true, deadLetterExchange: '', deadLetterRoutingKey: retry });
      await channel.assertQueue(retry, {
        exclusive: true, messageTtl: 50, deadLetterExchange: '', deadLetterRoutingKey: work,
      });
      const tries = [];
      const four = waiter(() => tries.length === 4);
      await channel.consume(work, (m) => {
        const deaths = m.properties.headers['x-death'] || [];
        tries.push(m.properties.headers);
        const rejected = deaths.find((d) => d.queue === work && d.reason === 'rejected');
        if (rejected && rejected.count === 3) channel.ack(m);
        else channel.nack(m, false, false);
        four.check();
      });
      channel.sendToQueue(work, Buffer.from('job'), { headers: { app: 'kept' } });
      await four.wait();
      const headers = tries[3];
      assert.equal(headers.app, 'kept');
      assert.equal(headers['x-first-death-queue'], work);
      assert.equal(headers['x-first-death-reason'], 'rejected');
      assert.deepEqual(
        headers['x-death'].map((d) => [d.queue, d.reason, d.count, d.exchange, d['routing-keys']]),
        [[retry, 'expired', 3, '', [retry]], [work, 'rejected', 3, '', [work]]],
      );
    });
  },

  // A full queue refuses: the publisher sees a nack, and what was accepted stays.
  async rejectPublish() {
    await withChannel(async (channel) => {
      const queue = name('full');
      await channel.assertQueue(queue, { exclusive: true, maxLength: 3, overflow: 'reject-publish' });
      const publish = (i) => new Promise((resolve) => {
        channel.sendToQueue(queue, Buffer.from(String(i)), {}, (err) => resolve(err ? 'n' : 'a'));
      });
      const outcomes = await Promise.all([0, 1, 2, 3, 4, 5].map(publish)); // all on the way at once
      assert.equal(outcomes.join(''), 'aaannn');
      assert.deepEqual(await drain(channel, queue), ['0', '1', '2']);
    });
  },

  async priorities() {
    await withChannel(async (channel) => {
      const queue = name('priorities');
      await channel.assertQueue(queue, { exclusive: true, maxPriority: 5 });
      for (const [i, priority] of [0, 5, 1, 5, 9, undefined, 3].entries()) {
        channel.sendToQueue(queue, Buffer.from(String(i)), { priority });
      }
      await channel.waitForConfirms();
      assert.deepEqual(await drain(channel, queue), ['1', '3', '4', '6', '2', '0', '5']); // 9 counts as 5, none as 0
    });
  },

  // One of two consumers gets everything, in order; the other one takes over what the first did not finish.
  async singleActiveConsumer() {
    await withChannel(async (channel, connection) => {
      const queue = name('single');
      await channel.assertQueue(queue, { exclusive: true, arguments: { 'x-single-active-consumer': true } });
      const [active, waiting] = [await connection.createChannel(), await connection.createChannel()];
      const [first, second] = [[], []];
      const six = waiter(() => first.length === 6);
      const two = waiter(() => second.length === 2);
      await active.consume(queue, (m) => { first.push(m); six.check(); });
      await waiting.consume(queue, (m) => {
        second.push([m.content.toString(), m.fields.redelivered]);
        two.check();
      }, { noAck: true });
      for (let i = 0; i < 6; i++) channel.sendToQueue(queue, Buffer.from(String(i)));
      await six.wait();
      assert.deepEqual(second, []);
      active.ack(first[3], true);
      await active.close();
      await two.wait();
      assert.deepEqual(second, [['4', true], ['5', true]]);
    });
  },

  async directReplyTo() {
    await withChannel(async (client, connection) => {
      const server = await connection.createChannel();
      const queue = name('rpc');
      await server.assertQueue(queue, { exclusive: true });
      await server.consume(queue, (m) => {
        const { replyTo, correlationId } = m.properties;
        server.sendToQueue(replyTo, Buffer.from(m.content.toString().toUpperCase()), { correlationId });
        server.ack(m);
      });
      const [want, answers] = [{}, {}];
      const ten = waiter(() => Object.keys(answers).length === 10);
      await client.consume('amq.rabbitmq.reply-to', (m) => {
        answers[m.properties.correlationId] = m.content.toString();
        ten.check();
      }, { noAck: true });
      for (let i = 0; i < 10; i++) {
        const correlationId = randomUUID();
        want[correlationId] = `CALL ${i}`;
        client.sendToQueue(queue, Buffer.from(`call ${i}`), { correlationId, replyTo: 'amq.rabbitmq.reply-to' });
      }
      await ten.wait();
      assert.deepEqual(answers, want);
    });
  },

  async delayedExchange() {
    await withChannel(async (channel) => {
      const exchange = name('delayed');
      await channel.assertExchange(exchange, 'x-delayed-message', {
        autoDelete: true, arguments: { 'x-delayed-type': 'direct' },
      });
      const { queue } = await channel.assertQueue('', { exclusive: true });
      await channel.bindQueue(queue, exchange, 'mail');
      const got = [];
      const three = waiter(() => got.length === 3);
      const start = performance.now();
      await channel.consume(queue, (m) => {
        got.push([m.properties.headers['x-delay'], performance.now() - start]);
        three.check();
      }, { noAck: true });
      for (const delay of [300, 100, 0]) channel.publish(exchange, 'mail', Buffer.from('m'), { headers: { 'x-delay': delay } });
      await channel.waitForConfirms();
      const quick = performance.now() - start < 100; // otherwise the order of what is due is that of the publishing
      await three.wait();
      const order = got.map(([delay]) => Math.abs(delay));
      assert.deepEqual(quick ? order : order.sort((a, b) => a - b), [0, 100, 300]);
      for (const [delay, elapsed] of got) assert.ok(elapsed >= -delay, `${elapsed} ms for a delay of ${-delay}`);
    });
  },

  // What matches no queue comes back before its confirm.
  async confirmsAndReturns() {
    await withChannel(async (channel) => {
      const queue = name('confirmed');
      await channel.assertQueue(queue, { exclusive: true });
      const events = [];
      channel.on('return', (m) => events.push(`return ${m.fields.replyCode} ${m.fields.replyText} ${m.content}`));
      const publish = (key, body) => channel.sendToQueue(key, Buffer.from(body), { mandatory: true, persistent: true }, (err) => {
        events.push(err ? `nack ${body}` : `ack ${body}`);
      });
      publish(queue, 'one');
      publish(name('nowhere'), 'two');
      publish(queue, 'three');
      await channel.waitForConfirms();
      const of = (body) => events.filter((e) => e.endsWith(` ${body}`));
      assert.deepEqual([of('one'), of('two'), of('three')], [['ack one'], ['return 312 NO_ROUTE two', 'ack two'], ['ack three']]);
      assert.deepEqual(await drain(channel, queue), ['one', 'three']);
    });
  },

  // The broker tells consumers that their queue is gone; the channel lives on.
  async consumerCancel() {
    await withChannel(async (channel) => {
      const queue = name('doomed');
      await channel.assertQueue(queue, { durable: true });
      const got = [];
      const cancelled = waiter(() => got.length === 1);
      await channel.consume(queue, (m) => { got.push(m); cancelled.check(); });
      await channel.deleteQueue(queue);
      await cancelled.wait();
      assert.deepEqual(got, [null]);
      await channel.assertQueue(name('next'), { exclusive: true });
    });
  },

  // A refused declaration closes the channel with RabbitMQ's words, and only that.
  async inequivalentArguments() {
    await withChannel(async (channel, connection) => {
      const queue = name('args');
      await channel.assertQueue(queue, { exclusive: true, messageTtl: 1000 });
      const other = await connection.createChannel();
      const closed = once(other, 'error');
      await assert.rejects(other.assertQueue(queue, { exclusive: true, messageTtl: 2000 }));
      const [err] = await closed;
      assert.equal(err.code, 406);
      assert.match(err.message, /inequivalent arg 'x-message-ttl' for queue '.*' in vhost '\/': received '2000' but current is '1000'/);
      await channel.checkQueue(queue);
    });
  },

  async streams() {
    await withChannel(async (channel, connection) => {
      const queue = name('stream');
      await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'stream' } });
      try {
        for (let i = 0; i < 20; i++) channel.sendToQueue(queue, Buffer.from(String(i)));
        await channel.waitForConfirms();
        for (const [offset, want] of [['first', 0], ['first', 0], [13, 13]]) {
          const reader = await connection.createChannel();
          await reader.prefetch(5);
          const got = [];
          const all = waiter(() => got.length === 20 - want);
          await reader.consume(queue, (m) => {
            got.push([m.properties.headers['x-stream-offset'], m.content.toString()]);
            reader.ack(m);
            all.check();
          }, { arguments: { 'x-stream-offset': offset } });
          await all.wait();
          await reader.close();
          assert.deepEqual(got, [...Array(20 - want).keys()].map((i) => [i + want, String(i + want)]));
        }
      } finally {
        await channel.deleteQueue(queue);
      }
    });
  },
};

run(checks);
