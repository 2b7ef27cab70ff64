<?php
// The scenarios with the extension amqp, on librabbitmq, as Symfony Messenger uses it: polling with get, delays by queues that expire.
declare(strict_types=1);

require __DIR__ . '/support.php';

function connect(string $variable = 'AMQP_URL', array $more = []): AMQPConnection
{
    $a = address($variable);
    $connection = new AMQPConnection($more + [
        'host' => $a['host'], 'port' => $a['port'], 'login' => $a['user'], 'password' => $a['pass'], 'vhost' => $a['vhost'],
        'connect_timeout' => PATIENCE, 'read_timeout' => PATIENCE, 'rpc_timeout' => PATIENCE,
    ]);
    $connection->connect();
    return $connection;
}

/** Runs f with a channel of a connection of its own. */
function channel(callable $f): callable
{
    return function () use ($f): void {
        $connection = connect();
        $f(new AMQPChannel($connection));
        $connection->disconnect();
    };
}

function queue(AMQPChannel $ch, string $hint, int $flags = AMQP_DURABLE, array $arguments = []): AMQPQueue
{
    $queue = new AMQPQueue($ch);
    $queue->setName(name($hint));
    $queue->setFlags($flags);
    $queue->setArguments($arguments);
    $queue->declareQueue();
    return $queue;
}

function exchange(AMQPChannel $ch, string $hint, string $type): AMQPExchange
{
    $exchange = new AMQPExchange($ch);
    $exchange->setName(name($hint));
    $exchange->setType($type);
    $exchange->setFlags(AMQP_DURABLE);
    $exchange->declareExchange();
    return $exchange;
}

/** Polls, as Messenger's workers do. */
function get(AMQPQueue $queue): AMQPEnvelope
{
    return eventually(fn () => $queue->get());
}

/** Waits until the broker has confirmed so many. */
function await_confirms(AMQPChannel $ch, int $count): void
{
    $confirmed = 0;
    $ch->setConfirmCallback(function (int $tag, bool $multiple) use (&$confirmed, $count) {
        $confirmed = $multiple ? $tag : $confirmed + 1; // in order
        return $confirmed < $count;
    }, function () {
        throw new RuntimeException('nacked');
    });
    $ch->waitForConfirm(PATIENCE);
}

function confirms(AMQPChannel $ch): void
{
    $queue = queue($ch, 'confirms');
    $ch->confirmSelect();
    $default = new AMQPExchange($ch);
    for ($i = 0; $i < 1000; $i++) {
        $default->publish("$i", $queue->getName(), AMQP_NOPARAM, ['delivery_mode' => 2]);
    }
    await_confirms($ch, 1000);
    equal($queue->declareQueue(), 1000);
    $queue->delete();
}

function returns(AMQPChannel $ch): void
{
    $seen = [];
    $ch->setReturnCallback(function ($code, $text, $exchange, $key, $properties, $body) use (&$seen) {
        $seen[] = "$code $text $body";
        return false;
    });
    (new AMQPExchange($ch))->publish('lost', name('nobody'), AMQP_MANDATORY);
    $ch->waitForBasicReturn(PATIENCE);
    equal($seen, ['312 NO_ROUTE lost']);
}

/** Messenger's way: a queue for each delay, which expires, and dead letters. */
function retry(AMQPChannel $ch): void
{
    $messages = exchange($ch, 'messages', AMQP_EX_TYPE_FANOUT);
    $work = queue($ch, 'work');
    $work->bind($messages->getName());
    $delays = exchange($ch, 'delays', AMQP_EX_TYPE_DIRECT);
    $messages->publish('job', '', AMQP_NOPARAM, ['delivery_mode' => 2]);
    for ($try = 0; $try < 3; $try++) {
        $m = get($work);
        equal((int) $m->getHeader('tries'), $try);
        $delay = queue($ch, "delay-$try", AMQP_DURABLE, [
            'x-message-ttl' => 50, 'x-expires' => 10_050, 'x-dead-letter-exchange' => $messages->getName(), 'x-dead-letter-routing-key' => '',
        ]);
        $delay->bind($delays->getName(), "delay-$try");
        $delays->publish($m->getBody(), "delay-$try", AMQP_NOPARAM, ['delivery_mode' => 2, 'headers' => ['tries' => $try + 1]]);
        $work->ack($m->getDeliveryTag());
    }
    $m = get($work);
    equal((int) $m->getHeader('tries'), 3);
    $death = $m->getHeader('x-death')[0];
    equal([$death['reason'], $death['queue'], (int) $death['count']], ['expired', name('delay-2'), 1]);
    $work->ack($m->getDeliveryTag());
    foreach ([$work, $messages, $delays] as $object) {
        $object->delete();
    }
}

function prefetch(AMQPChannel $ch): void
{
    $queue = queue($ch, 'prefetch', AMQP_EXCLUSIVE);
    $ch->confirmSelect();
    $default = new AMQPExchange($ch);
    for ($i = 0; $i < 10; $i++) {
        $default->publish("$i", $queue->getName());
    }
    await_confirms($ch, 10);
    $ch->qos(0, 5);
    $got = [];
    $queue->consume(function (AMQPEnvelope $m) use (&$got) {
        $got[] = $m;
        return count($got) < 5;
    });
    equal($queue->declareQueue(), 5); // the others are ready
    $queue->ack($got[4]->getDeliveryTag(), AMQP_MULTIPLE);
    $queue->consume(function (AMQPEnvelope $m) use (&$got) {
        $got[] = $m;
        return count($got) < 10;
    }, AMQP_JUST_CONSUME);
    equal(array_map(fn ($m) => $m->getBody(), $got), array_map('strval', range(0, 9)));
}

function bodies(AMQPChannel $ch): void
{
    $queue = queue($ch, 'bodies', AMQP_EXCLUSIVE);
    foreach ([0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20] as $size) {
        $body = $size > 0 ? random_bytes($size) : '';
        (new AMQPExchange($ch))->publish($body, $queue->getName());
        $m = get($queue);
        $got = (string) $m->getBody(); // an empty one is false
        equal([strlen($got), md5($got)], [$size, md5($body)]);
        $queue->ack($m->getDeliveryTag());
    }
}

function headers(AMQPChannel $ch): void
{
    $queue = queue($ch, 'headers', AMQP_EXCLUSIVE);
    $headers = [ // its lists hold strings only
        'true' => true, 'false' => false, 'int' => -5, 'big' => PHP_INT_MIN, 'text' => "gr\u{fc}n \u{1F407}", 'empty' => '', 'null' => null,
        'table' => ['in' => ['deeper' => 1]], 'list' => ['one', 'two'], 'double' => 1.25,
    ];
    (new AMQPExchange($ch))->publish('x', $queue->getName(), AMQP_NOPARAM, [
        'headers' => $headers, 'content_type' => 'text/plain', 'content_encoding' => 'utf-8', 'delivery_mode' => 2, 'priority' => 9, 'correlation_id' => 'c',
        'reply_to' => 'r', 'expiration' => '100000', 'message_id' => 'm', 'timestamp' => 1700000000, 'type' => 't', 'app_id' => 'a',
    ]);
    $m = get($queue);
    $got = $m->getHeaders();
    ksort($got);
    ksort($headers);
    equal($got, $headers);
    equal(
        [$m->getContentType(), $m->getContentEncoding(), (int) $m->getDeliveryMode(), (int) $m->getPriority(), $m->getCorrelationId(), $m->getReplyTo(),
            $m->getExpiration(), $m->getMessageId(), (int) $m->getTimestamp(), $m->getType(), $m->getAppId()],
        ['text/plain', 'utf-8', 2, 9, 'c', 'r', '100000', 'm', 1700000000, 't', 'a'],
    );
    $queue->ack($m->getDeliveryTag());
}

function recovery(): void
{
    $connection = connect();
    $declare = function () use (&$connection): array {
        $connection->isConnected() ? null : $connection->reconnect();
        $ch = new AMQPChannel($connection);
        $ch->confirmSelect();
        $mine = queue($ch, 'recovery-mine', AMQP_EXCLUSIVE); // of a dead connection it is free at once
        return [$ch, queue($ch, 'recovery')];
    };
    [$ch, $queue] = eventually($declare);
    for ($i = 0; $i < 100; $i++) {
        if ($i === 30 || $i === 60) {
            control('kill');
            control('start');
        }
        eventually(function () use (&$ch, &$queue, &$connection, $declare, $i) {
            try {
                (new AMQPExchange($ch))->publish("$i", $queue->getName(), AMQP_NOPARAM, ['delivery_mode' => 2]);
                await_confirms($ch, 1);
                return true;
            } catch (AMQPException $e) {
                $connection = connect();
                [$ch, $queue] = $declare();
                throw $e;
            }
        });
        $ch = new AMQPChannel($connection);
        $ch->confirmSelect();
        $queue = queue($ch, 'recovery');
    }
    $got = [];
    eventually(function () use (&$got, $queue) {
        $m = $queue->get(AMQP_AUTOACK);
        if ($m) {
            $got[$m->getBody()] = true;
        }
        return count($got) === 100;
    });
    $queue->delete();
    $connection->disconnect();
}

function tls(): void
{
    $dir = getenv('BROKER_TLS');
    $ca = ['cacert' => "$dir/ca.pem", 'verify' => true];
    $connection = connect('AMQPS_URL', $ca + ['cert' => "$dir/client.pem", 'key' => "$dir/client-key.pem"]);
    $ch = new AMQPChannel($connection);
    $queue = queue($ch, 'tls', AMQP_EXCLUSIVE);
    (new AMQPExchange($ch))->publish('safe', $queue->getName());
    equal(get($queue)->getBody(), 'safe');
    $connection->disconnect();
    foreach ([['cert' => "$dir/other.pem", 'key' => "$dir/other-key.pem"], []] as $certificate) {
        try {
            connect('AMQPS_URL', $ca + $certificate);
        } catch (AMQPException) {
            continue;
        }
        throw new RuntimeException('connected with ' . json_encode($certificate));
    }
}

run([
    'recovery' => ['AMQP_CTL', 'recovery'],
    'confirms' => ['', channel('confirms')],
    'returns' => ['', channel('returns')],
    'prefetch' => ['', channel('prefetch')],
    'retry' => ['', channel('retry')],
    'tls' => ['AMQPS_URL', 'tls'],
    'bodies' => ['', channel('bodies')],
    'headers' => ['', channel('headers')],
]);
