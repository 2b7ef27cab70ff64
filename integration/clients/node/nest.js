// NestJS microservices over RMQ: requests and events to a durable queue, answers over direct reply-to, manual acks.
'use strict';

require('reflect-metadata');
const assert = require('node:assert/strict');
const { Controller, Module } = require('@nestjs/common');
const { NestFactory } = require('@nestjs/core');
const { ClientProxyFactory, Ctx, EventPattern, MessagePattern, Payload, RmqContext, Transport } = require('@nestjs/microservices');
const { firstValueFrom, timeout } = require('rxjs');
const { control, name, retrying, run, waiter, URL, PATIENCE } = require('./support');

const events = [];
let come = { check() {} };

class Orders {
  double(n, context) {
    context.getChannelRef().ack(context.getMessage());
    return 2 * n;
  }

  fail(_payload, context) {
    context.getChannelRef().ack(context.getMessage());
    throw new Error('as planned');
  }

  placed(order, context) {
    events.push(order.id);
    context.getChannelRef().ack(context.getMessage());
    come.check();
  }
}

// Decorators, without a compiler for them.
function decorate(method, decorator) {
  const descriptor = Object.getOwnPropertyDescriptor(Orders.prototype, method);
  decorator(Orders.prototype, method, descriptor);
  Payload()(Orders.prototype, method, 0);
  Ctx()(Orders.prototype, method, 1);
  Reflect.defineMetadata('design:paramtypes', [Object, RmqContext], Orders.prototype, method);
  Object.defineProperty(Orders.prototype, method, descriptor);
}
decorate('double', MessagePattern('double'));
decorate('fail', MessagePattern('fail'));
decorate('placed', EventPattern('placed'));
Controller()(Orders);

class Application {}
Module({ controllers: [Orders] })(Application);

const options = (queue) => ({
  urls: [URL], queue, queueOptions: { durable: true }, persistent: true, socketOptions: { reconnectTimeInSeconds: 0.1, heartbeatIntervalInSeconds: 5 },
});

async function withService(hint, f) {
  const queue = name(hint);
  const service = await NestFactory.createMicroservice(Application, {
    transport: Transport.RMQ, logger: false, options: { ...options(queue), noAck: false, prefetchCount: 5 },
  });
  await service.listen();
  const client = ClientProxyFactory.create({ transport: Transport.RMQ, options: options(queue) });
  await client.connect();
  try {
    await f(client);
  } finally {
    await client.close();
    await service.close();
  }
}

const ask = (client, pattern, payload, patience = PATIENCE) => firstValueFrom(client.send(pattern, payload).pipe(timeout(patience)));

const checks = {
  async rpc() {
    await withService('rpc', async (client) => {
      const answers = await Promise.all([...Array(20).keys()].map((i) => ask(client, 'double', i)));
      assert.deepEqual(answers, [...Array(20).keys()].map((i) => 2 * i));
      await assert.rejects(ask(client, 'fail', 1), (err) => err.status === 'error');
    });
  },

  async events() {
    await withService('events', async (client) => {
      events.length = 0;
      come = waiter(() => events.length === 100);
      for (let id = 0; id < 100; id++) client.emit('placed', { id });
      await come.wait();
      assert.deepEqual(events, [...Array(100).keys()]);
    });
  },

  async recovery() {
    control(); // or it is skipped
    await withService('recovery', async (client) => {
      for (let round = 0; round < 3; round++) {
        if (round > 0) {
          control('kill');
          control('start');
        }
        await retrying(async () => assert.equal(await ask(client, 'double', 21, 2000), 42));
        events.length = 0;
        come = waiter(() => new Set(events).size === 50);
        for (let id = 0; id < 50; id++) await firstValueFrom(client.emit('placed', { id }), { defaultValue: null });
        await come.wait();
      }
    });
  },
};

run(checks).then(() => process.exit());
