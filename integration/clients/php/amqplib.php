<?php
// The scenarios with php-amqplib.
declare(strict_types=1);

require 'PhpAmqpLib/autoload.php';
require __DIR__ . '/support.php';

use PhpAmqpLib\Channel\AMQPChannel;
use PhpAmqpLib\Connection\AMQPSSLConnection;
use PhpAmqpLib\Connection\AMQPStreamConnection;
use PhpAmqpLib\Exception\AMQPBasicCancelException;
use PhpAmqpLib\Exception\AMQPExceptionInterface;
use PhpAmqpLib\Message\AMQPMessage;
use PhpAmqpLib\Wire\AMQPArray;
use PhpAmqpLib\Wire\AMQPDecimal;
use PhpAmqpLib\Wire\AMQPTable;

function connect(): AMQPStreamConnection
{
    $a = address('AMQP_URL');
    return new AMQPStreamConnection($a['host'], $a['port'], $a['user'], $a['pass'], $a['vhost'], false, 'AMQPLAIN', null, 'en_US', PATIENCE, PATIENCE);
}

/** Runs f with a channel of a connection of its own. */
function channel(callable $f): callable
{
    return function () use ($f): void {
        $connection = connect();
        $f($connection->channel(), $connection);
        $connection->close();
    };
}

function persistent(string $body, array $properties = []): AMQPMessage
{
    return new AMQPMessage($body, $properties + ['delivery_mode' => AMQPMessage::DELIVERY_MODE_PERSISTENT]);
}

/** Serves the channel until done. */
function pump(AMQPChannel $ch, callable $done): void
{
    $deadline = microtime(true) + PATIENCE;
    while (!$done()) {
        $ch->wait(null, false, max(0.1, $deadline - microtime(true)));
    }
}

function confirms(AMQPChannel $ch): void
{
    $ch->queue_declare(name('confirms'), false, true, false, false);
    $acked = 0;
    $ch->set_ack_handler(function () use (&$acked) { $acked++; });
    $ch->confirm_select();
    for ($i = 0; $i < 1000; $i++) {
        $ch->batch_basic_publish(persistent("$i"), '', name('confirms'));
    }
    $ch->publish_batch();
    $ch->wait_for_pending_acks(PATIENCE);
    equal($acked, 1000);
    [, $ready] = $ch->queue_declare(name('confirms'), true);
    equal($ready, 1000);
    $ch->queue_delete(name('confirms'));
}

function returns(AMQPChannel $ch): void
{
    $seen = [];
    $ch->set_return_listener(function ($code, $text, $exchange, $key, AMQPMessage $m) use (&$seen) { $seen[] = "$code $text $m->body"; });
    $ch->set_ack_handler(function (AMQPMessage $m) use (&$seen) { $seen[] = "ack $m->body"; });
    [$queue] = $ch->queue_declare('', false, false, true);
    $ch->confirm_select();
    $ch->basic_publish(new AMQPMessage('lost'), '', name('nobody'), true);
    $ch->wait_for_pending_acks_returns(PATIENCE);
    $ch->basic_publish(new AMQPMessage('found'), '', $queue, true);
    $ch->wait_for_pending_acks_returns(PATIENCE);
    equal($seen, ['312 NO_ROUTE lost', 'ack lost', 'ack found']);
}

function prefetch(AMQPChannel $ch, AMQPStreamConnection $connection): void
{
    [$queue] = $ch->queue_declare('', false, false, true);
    $ch->confirm_select();
    for ($i = 0; $i < 10; $i++) {
        $ch->basic_publish(new AMQPMessage("$i"), '', $queue);
    }
    $ch->wait_for_pending_acks(PATIENCE);
    $got = [];
    $ch->basic_qos(0, 5, false);
    $ch->basic_consume($queue, '', false, false, false, false, function (AMQPMessage $m) use (&$got) { $got[] = $m; });
    pump($ch, function () use (&$got) { return count($got) >= 5; });
    // What the broker had sent beyond it would be here before this answer.
    $ch->queue_declare($queue, true);
    equal(count($got), 5);
    $got[0]->ack();
    pump($ch, function () use (&$got) { return count($got) >= 6; });
    $ch->queue_declare($queue, true);
    equal(count($got), 6);
    $got[5]->ack(true);
    pump($ch, function () use (&$got) { return count($got) >= 10; });
    equal(array_map(fn ($m) => $m->body, $got), array_map('strval', range(0, 9)));
}

function retry(AMQPChannel $ch): void
{
    $ch->exchange_declare(name('dlx'), 'fanout', false, false, true);
    $ch->queue_declare(name('work'), false, true, false, false, false, new AMQPTable(['x-dead-letter-exchange' => name('dlx')]));
    $ch->queue_declare(name('wait'), false, true, false, false, false, new AMQPTable([
        'x-dead-letter-exchange' => '', 'x-dead-letter-routing-key' => name('work'), 'x-message-ttl' => 50,
    ]));
    $ch->queue_bind(name('wait'), name('dlx'));
    $ch->basic_publish(persistent('job'), '', name('work'));
    $tries = [];
    $ch->basic_consume(name('work'), '', false, false, false, false, function (AMQPMessage $m) use (&$tries) {
        $headers = $m->has('application_headers') ? $m->get('application_headers')->getNativeData() : [];
        $count = 0;
        foreach ($headers['x-death'] ?? [] as $death) {
            if ($death['queue'] === name('work') && $death['reason'] === 'rejected') {
                $count = $death['count'];
            }
        }
        $tries[] = $count;
        $count < 3 ? $m->reject(false) : $m->ack();
    });
    pump($ch, function () use (&$tries) { return count($tries) >= 4; });
    equal($tries, [0, 1, 2, 3]);
    $ch->queue_delete(name('work'));
    $ch->queue_delete(name('wait'));
}

function rpc(AMQPChannel $ch, AMQPStreamConnection $connection): void
{
    $ch->queue_declare(name('rpc'), false, false, true);
    $ch->basic_consume(name('rpc'), '', false, true, false, false, function (AMQPMessage $m) use ($ch) {
        $ch->basic_publish(new AMQPMessage((string) ($m->body * 2), ['correlation_id' => $m->get('correlation_id')]), '', $m->get('reply_to'));
    });
    $client = $connection->channel();
    $answers = [];
    $client->basic_consume('amq.rabbitmq.reply-to', '', false, true, false, false, function (AMQPMessage $m) use (&$answers) {
        $answers[$m->get('correlation_id')] = $m->body;
    });
    for ($i = 0; $i < 20; $i++) {
        $client->basic_publish(new AMQPMessage("$i", ['correlation_id' => "id$i", 'reply_to' => 'amq.rabbitmq.reply-to']), '', name('rpc'));
    }
    eventually(function () use ($ch, $client, &$answers) {
        $ch->wait(null, true);
        $client->wait(null, true);
        return count($answers) === 20;
    });
    for ($i = 0; $i < 20; $i++) {
        equal($answers["id$i"], (string) (2 * $i));
    }
}

function cancelled(AMQPChannel $ch): void
{
    $ch->queue_declare(name('gone'));
    $tag = $ch->basic_consume(name('gone'));
    $other = connect();
    $other->channel()->queue_delete(name('gone'));
    $other->close();
    try {
        pump($ch, fn () => false);
    } catch (AMQPBasicCancelException $e) {
        equal($e->consumerTag, $tag);
    }
}

function bodies(AMQPChannel $ch): void
{
    [$queue] = $ch->queue_declare('', false, false, true);
    foreach ([0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20] as $size) {
        $body = $size > 0 ? random_bytes($size) : '';
        $ch->basic_publish(new AMQPMessage($body), '', $queue);
        $m = eventually(fn () => $ch->basic_get($queue, true));
        equal(strlen($m->body), $size);
        equal(md5($m->body), md5($body));
    }
}

function headers(AMQPChannel $ch): void
{
    [$queue] = $ch->queue_declare('', false, false, true);
    $headers = new AMQPTable([
        'true' => true, 'false' => false, 'int' => -5, 'big' => PHP_INT_MIN, 'text' => "gr\u{fc}n \u{1F407}", 'empty' => '', 'null' => null,
        'table' => ['in' => ['deeper' => 1]], 'list' => [1, 'two', [3]], 'time' => new DateTime('@1700000000'), 'decimal' => new AMQPDecimal(12345, 2),
        'double' => 1.25,
    ]);
    $headers->set('short', -7, AMQPTable::T_INT_SHORT);
    $headers->set('octet', -8, AMQPTable::T_INT_SHORTSHORT);
    $headers->set('bytes', "\x00\xff", AMQPTable::T_BYTES);
    $properties = [
        'content_type' => 'text/plain', 'content_encoding' => 'utf-8', 'application_headers' => $headers, 'delivery_mode' => 2, 'priority' => 9,
        'correlation_id' => 'c', 'reply_to' => 'r', 'expiration' => '100000', 'message_id' => 'm', 'timestamp' => 1700000000, 'type' => 't',
        'user_id' => address('AMQP_URL')['user'], 'app_id' => 'a', 'cluster_id' => 'k',
    ];
    $ch->basic_publish(new AMQPMessage('x', $properties), '', $queue);
    $m = eventually(fn () => $ch->basic_get($queue, true));
    foreach ($properties as $key => $value) {
        if ($key !== 'application_headers') {
            equal($m->get($key), $value);
        }
    }
    $got = $m->get('application_headers');
    $types = [];
    foreach ($headers as $key => [$type, $value]) {
        $types[$key] = $type;
    }
    foreach ($got as $key => [$type]) {
        equal([$key, $type], [$key, $types[$key]]);
    }
    equal(count($got->getNativeData()), count($types));
    $native = fn (AMQPTable $t) => array_map(fn ($v) => $v instanceof DateTime ? $v->getTimestamp() : ($v instanceof AMQPDecimal ? [$v->getN(), $v->getE()] : $v), $t->getNativeData());
    $want = $native($headers);
    $have = $native($got);
    ksort($want);
    ksort($have);
    equal($have, $want);
}

/** A loop around connect, as a supervised worker has it. */
function recovery(): void
{
    $queue = name('recovery');
    $exchange = name('recovery-x');
    $declare = function () use ($queue, $exchange): array {
        $connection = connect();
        $ch = $connection->channel();
        $ch->exchange_declare($exchange, 'topic', false, true, false);
        $ch->queue_declare($queue, false, true, false, false);
        $ch->queue_bind($queue, $exchange, 'a.#');
        $ch->queue_declare(name('recovery-mine'), false, false, true); // of a dead connection it is free at once
        $ch->confirm_select();
        return [$connection, $ch];
    };
    [$connection, $ch] = eventually($declare);
    $confirmed = [];
    $number = 0;
    for ($round = 0; $round < 3; $round++) {
        for ($i = 0; $i < 100; $i++) {
            if ($i === 50 && $round < 2) {
                control('kill');
                control('start');
            }
            $body = (string) $number++;
            while (!isset($confirmed[$body])) {
                try {
                    $ch->basic_publish(persistent($body), $exchange, 'a.b');
                    $ch->wait_for_pending_acks(PATIENCE);
                    $confirmed[$body] = true;
                } catch (AMQPExceptionInterface $e) {
                    [$connection, $ch] = eventually($declare);
                }
            }
        }
        $got = [];
        $ch->basic_consume($queue, 'worker', false, false, false, false, function (AMQPMessage $m) use (&$got) {
            $got[$m->body] = true;
            $m->ack();
        });
        pump($ch, function () use (&$got, &$confirmed) { return array_diff_key($confirmed, $got) === []; });
        $ch->basic_cancel('worker');
        $confirmed = [];
    }
    $ch->queue_delete($queue);
    $ch->exchange_delete($exchange);
    $connection->close();
}

function blocked(AMQPChannel $ch, AMQPStreamConnection $connection): void
{
    $notices = [];
    $connection->set_connection_block_handler(function ($reason) use (&$notices) { $notices[] = "blocked: $reason"; });
    $connection->set_connection_unblock_handler(function () use (&$notices) { $notices[] = 'unblocked'; });
    [$queue] = $ch->queue_declare(name('blocked'), false, true, false, false);
    $acked = [];
    $ch->set_ack_handler(function (AMQPMessage $m) use (&$acked) { $acked[] = $m->body; });
    $ch->confirm_select();
    $ch->basic_publish(persistent('before'), '', $queue);
    $ch->wait_for_pending_acks(PATIENCE);
    control('block');
    $ch->basic_publish(persistent('first'), '', $queue); // by which a broker may notice
    $serve = fn (callable $done) => eventually(function () use ($connection, $done) {
        try {
            $connection->wait(null, false, 0.1);
        } catch (PhpAmqpLib\Exception\AMQPTimeoutException) {
        }
        return $done();
    });
    $serve(function () use (&$notices) { return $notices === ['blocked: low on memory']; });
    $other = connect();
    $consumer = $other->channel();
    $got = [];
    $consumer->basic_consume($queue, '', false, true, false, false, function (AMQPMessage $m) use (&$got) { $got[] = $m->body; });
    pump($consumer, function () use (&$got) { return in_array('before', $got, true); });
    control('unblock');
    $serve(function () use (&$notices) { return $notices === ['blocked: low on memory', 'unblocked']; });
    $ch->basic_publish(persistent('after'), '', $queue);
    $ch->wait_for_pending_acks(PATIENCE);
    equal($acked, ['before', 'first', 'after']);
    $other->close();
    $ch->queue_delete($queue);
}

function tls(): void
{
    $a = address('AMQPS_URL');
    $dir = getenv('BROKER_TLS');
    $connect = fn (array $certificate) => new AMQPSSLConnection($a['host'], $a['port'], $a['user'], $a['pass'], $a['vhost'], [
        'cafile' => "$dir/ca.pem", 'verify_peer' => true, 'verify_peer_name' => true,
    ] + $certificate, ['connection_timeout' => PATIENCE, 'read_write_timeout' => PATIENCE]);
    $connection = $connect(['local_cert' => "$dir/client.pem", 'local_pk' => "$dir/client-key.pem"]);
    $ch = $connection->channel();
    [$queue] = $ch->queue_declare('', false, false, true);
    $ch->basic_publish(new AMQPMessage('safe'), '', $queue);
    equal(eventually(fn () => $ch->basic_get($queue, true))->body, 'safe');
    $connection->close();
    foreach ([['local_cert' => "$dir/other.pem", 'local_pk' => "$dir/other-key.pem"], []] as $certificate) {
        try {
            @$connect($certificate); // PHP warns, too
        } catch (Exception) {
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
    'rpc' => ['', channel('rpc')],
    'blocked' => ['AMQP_CTL', channel('blocked')],
    'tls' => ['AMQPS_URL', 'tls'],
    'cancel' => ['', channel('cancelled')],
    'bodies' => ['', channel('bodies')],
    'headers' => ['', channel('headers')],
]);
