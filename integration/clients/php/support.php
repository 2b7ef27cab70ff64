<?php
// What the programs in this folder share. They print a line per check and "N passed, N failed" at the end, and exit with 1
// if one failed. Queues and exchanges have names of their own.
declare(strict_types=1);

const PATIENCE = 30.0; // seconds for anything that must happen

$run = bin2hex(random_bytes(4));

function name(string $hint): string
{
    global $run;
    return "clients-php-$run-$hint";
}

/** The parts of a URL of the environment: host, port, user, pass, vhost. */
function address(string $variable): array
{
    $u = parse_url(getenv($variable) ?: 'amqp://guest:guest@localhost:5672/');
    $vhost = rawurldecode(substr($u['path'] ?? '/', 1));
    return ['host' => $u['host'], 'port' => $u['port'] ?? 5672, 'user' => $u['user'] ?? 'guest', 'pass' => $u['pass'] ?? 'guest', 'vhost' => $vhost ?: '/'];
}

/** Does something with the broker: kill, start, block, unblock. */
function control(string $verb): void
{
    exec(escapeshellarg(getenv('AMQP_CTL')) . " $verb 2>&1", $output, $status);
    if ($status !== 0) {
        throw new RuntimeException("$verb: " . implode("\n", $output));
    }
}

function equal(mixed $got, mixed $want): void
{
    if ($got !== $want) {
        throw new RuntimeException('got ' . var_export($got, true) . ', want ' . var_export($want, true));
    }
}

/** Tries again, after a moment, until f returns something, for as long as PATIENCE. */
function eventually(callable $f): mixed
{
    $deadline = microtime(true) + PATIENCE;
    while (true) {
        try {
            $result = $f();
            if ($result !== null && $result !== false) {
                return $result;
            }
            $problem = new RuntimeException('what should have happened did not');
        } catch (Exception $e) {
            $problem = $e;
        }
        if (microtime(true) > $deadline) {
            throw $problem;
        }
        usleep(10_000);
    }
}

/** Runs checks by name; one that needs a variable which is not set is skipped. Ends the process. */
function run(array $checks): never
{
    $passed = $failed = 0;
    foreach ($checks as $name => [$needs, $check]) {
        if ($needs !== '' && !getenv($needs)) {
            echo "skip $name: $needs is not set\n";
            continue;
        }
        try {
            $check();
            $passed++;
            echo "ok   $name\n";
        } catch (Throwable $e) {
            $failed++;
            echo "FAIL $name\n$e\n";
        }
    }
    echo "$passed passed, $failed failed\n";
    exit($failed ? 1 : 0);
}
