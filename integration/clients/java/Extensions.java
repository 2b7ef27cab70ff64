import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.DeliverCallback;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.AMQP;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

/**
 * RabbitMQ's extensions of AMQP 0-9-1 through its Java client, as its users write them.
 *
 * <p>Runs against AMQP_URL. Prints a line per check and "N passed, N failed" at the end; exits with 1 if one failed. Queues
 * and exchanges have names of their own and are removed.
 */
public final class Extensions {
    private static final long PATIENCE = 30; // seconds for anything that must happen
    private static final String RUN = UUID.randomUUID().toString().substring(0, 8);

    private interface Check {
        void run(Connection connection, Channel channel) throws Exception;
    }

    private static int passed;
    private static int failed;

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@localhost:5672/").replaceAll("/$", ""));
        factory.setAutomaticRecoveryEnabled(false);

        check(factory, "retryLoop", Extensions::retryLoop);
        check(factory, "rejectPublish", Extensions::rejectPublish);
        check(factory, "priorities", Extensions::priorities);
        check(factory, "singleActiveConsumer", Extensions::singleActiveConsumer);
        check(factory, "directReplyTo", Extensions::directReplyTo);
        check(factory, "delayedExchange", Extensions::delayedExchange);
        check(factory, "confirmsAndReturns", Extensions::confirmsAndReturns);
        check(factory, "consumerCancel", Extensions::consumerCancel);
        check(factory, "inequivalentArguments", Extensions::inequivalentArguments);
        check(factory, "streams", Extensions::streams);
        check(factory, "quorumQueue", Extensions::quorumQueue);
        recovery(factory);

        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }

    private static void check(ConnectionFactory factory, String name, Check check) {
        try (Connection connection = factory.newConnection()) {
            check.run(connection, connection.createChannel());
            passed++;
            System.out.println("ok   " + name);
        } catch (Exception | AssertionError e) {
            failed++;
            System.out.println("FAIL " + name);
            e.printStackTrace(System.out);
        }
    }

    private static String name(String hint) {
        return "clients-java-" + RUN + "-" + hint;
    }

    private static byte[] bytes(Object body) {
        return body.toString().getBytes(StandardCharsets.UTF_8);
    }

    private static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    private static void equal(Object got, Object want) {
        if (!want.equals(got)) {
            throw new AssertionError("got " + got + ", want " + want);
        }
    }

    private static <T> T next(BlockingQueue<T> inbox) throws Exception {
        T item = inbox.poll(PATIENCE, TimeUnit.SECONDS);
        if (item == null) {
            throw new TimeoutException("what should have been delivered was not");
        }
        return item;
    }

    private static List<String> drain(Channel channel, String queue) throws IOException {
        List<String> got = new ArrayList<>();
        for (GetResponse r = channel.basicGet(queue, true); r != null; r = channel.basicGet(queue, true)) {
            got.add(text(r.getBody()));
        }
        return got;
    }

    private static void exclusive(Channel channel, String queue, Map<String, Object> arguments) throws IOException {
        channel.queueDeclare(queue, false, true, false, arguments);
    }

    private static BasicProperties headers(Map<String, Object> headers) {
        return new BasicProperties.Builder().headers(headers).build();
    }

    private static final CancelCallback IGNORE = tag -> {};

    @SuppressWarnings("unchecked")
    private static List<Map<String, Object>> deaths(Delivery d) {
        return (List<Map<String, Object>>) d.getProperties().getHeaders().getOrDefault("x-death", List.of());
    }

    /** Failed work waits in a queue with a time to live and comes back, until x-death says that it was tried three times. */
    private static void retryLoop(Connection connection, Channel channel) throws Exception {
        String work = name("work");
        String retry = name("retry");
        exclusive(channel, work, Map.of("x-dead-letter-exchange", "", "x-dead-letter-routing-key", retry));
        exclusive(channel, retry,
                Map.of("x-message-ttl", 50, "x-dead-letter-exchange", "", "x-dead-letter-routing-key", work));
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(work, false, (tag, d) -> inbox.add(d), IGNORE);
        channel.basicPublish("", work, headers(Map.of("app", "kept")), bytes("job"));
        for (int i = 0; i < 3; i++) {
            channel.basicReject(next(inbox).getEnvelope().getDeliveryTag(), false);
        }
        Delivery last = next(inbox);
        channel.basicAck(last.getEnvelope().getDeliveryTag(), false);
        Map<String, Object> headers = last.getProperties().getHeaders();
        equal(headers.get("app").toString(), "kept");
        equal(headers.get("x-first-death-queue").toString(), work);
        equal(headers.get("x-first-death-reason").toString(), "rejected");
        List<String> got = new ArrayList<>();
        for (Map<String, Object> d : deaths(last)) {
            got.add(d.get("queue") + " " + d.get("reason") + " " + d.get("count") + " " + d.get("routing-keys"));
        }
        equal(got, List.of(retry + " expired 3 [" + retry + "]", work + " rejected 3 [" + work + "]"));
    }

    /** A full queue refuses: the publisher sees nacks, and what was accepted stays. */
    private static void rejectPublish(Connection connection, Channel channel) throws Exception {
        String queue = name("full");
        exclusive(channel, queue, Map.of("x-max-length", 3, "x-overflow", "reject-publish"));
        channel.confirmSelect();
        StringBuilder outcome = new StringBuilder();
        for (int i = 0; i < 6; i++) {
            channel.basicPublish("", queue, null, bytes(i));
            outcome.append(channel.waitForConfirms(PATIENCE * 1000) ? 'a' : 'n');
        }
        equal(outcome.toString(), "aaannn");
        equal(drain(channel, queue), List.of("0", "1", "2"));
    }

    private static void priorities(Connection connection, Channel channel) throws Exception {
        String queue = name("priorities");
        exclusive(channel, queue, Map.of("x-max-priority", 5));
        int[] priorities = {0, 5, 1, 5, 9, 3};
        for (int i = 0; i < priorities.length; i++) {
            BasicProperties p = new BasicProperties.Builder().priority(priorities[i]).build();
            channel.basicPublish("", queue, p, bytes(i));
        }
        equal(drain(channel, queue), List.of("1", "3", "4", "5", "2", "0")); // 9 counts as 5
    }

    /** One of two consumers gets everything, in order; the other one takes over what the first did not finish. */
    private static void singleActiveConsumer(Connection connection, Channel channel) throws Exception {
        String queue = name("single");
        exclusive(channel, queue, Map.of("x-single-active-consumer", true));
        Channel waiting = connection.createChannel();
        BlockingQueue<Delivery> first = new LinkedBlockingQueue<>();
        BlockingQueue<Delivery> second = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, (tag, d) -> first.add(d), IGNORE);
        waiting.basicConsume(queue, true, (tag, d) -> second.add(d), IGNORE);
        Channel publisher = connection.createChannel();
        for (int i = 0; i < 6; i++) {
            publisher.basicPublish("", queue, null, bytes(i));
        }
        List<Delivery> got = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            got.add(next(first));
        }
        equal(second.size(), 0);
        channel.basicAck(got.get(3).getEnvelope().getDeliveryTag(), true);
        channel.close();
        for (String want : List.of("4", "5")) {
            Delivery d = next(second);
            equal(text(d.getBody()), want);
            equal(d.getEnvelope().isRedeliver(), true);
        }
    }

    private static void directReplyTo(Connection connection, Channel client) throws Exception {
        Channel server = connection.createChannel();
        String queue = name("rpc");
        exclusive(server, queue, Map.of());
        DeliverCallback serve = (tag, d) -> {
            BasicProperties p = new BasicProperties.Builder().correlationId(d.getProperties().getCorrelationId()).build();
            server.basicPublish("", d.getProperties().getReplyTo(), p, bytes(text(d.getBody()).toUpperCase()));
        };
        server.basicConsume(queue, true, serve, IGNORE);
        BlockingQueue<String> inbox = new LinkedBlockingQueue<>();
        client.basicConsume("amq.rabbitmq.reply-to", true,
                (tag, d) -> inbox.add(d.getProperties().getCorrelationId() + " " + text(d.getBody())), IGNORE);
        for (int i = 0; i < 10; i++) {
            BasicProperties p =
                    new BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").correlationId("" + i).build();
            client.basicPublish("", queue, p, bytes("call " + i));
        }
        for (int i = 0; i < 10; i++) {
            equal(next(inbox), i + " CALL " + i);
        }
    }

    private static void delayedExchange(Connection connection, Channel channel) throws Exception {
        String exchange = name("delayed");
        channel.exchangeDeclare(exchange, "x-delayed-message", false, true, Map.of("x-delayed-type", "fanout"));
        String queue = channel.queueDeclare().getQueue();
        channel.queueBind(queue, exchange, "");
        channel.confirmSelect();
        long start = System.nanoTime();
        for (int delay : new int[] {300, 100}) {
            channel.basicPublish(exchange, "", headers(Map.of("x-delay", delay)), bytes(delay));
        }
        channel.waitForConfirms(PATIENCE * 1000);
        // Otherwise the order of what is due is that of the publishing.
        boolean quick = System.nanoTime() - start < 100_000_000;
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, true, (tag, d) -> inbox.add(d), IGNORE);
        for (int due : new int[] {100, 300}) {
            Delivery d = next(inbox);
            long elapsed = (System.nanoTime() - start) / 1_000_000;
            int delay = Integer.parseInt(text(d.getBody()));
            equal(delay == due || !quick, true);
            equal(d.getProperties().getHeaders().get("x-delay"), -delay);
            if (elapsed < delay) {
                throw new AssertionError("came after " + elapsed + " ms, its delay is " + delay);
            }
        }
    }

    /** A thousand confirms; what matches no queue comes back before its confirm. */
    private static void confirmsAndReturns(Connection connection, Channel channel) throws Exception {
        String queue = name("confirmed");
        channel.queueDeclare(queue, true, false, false, Map.of());
        channel.confirmSelect();
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener(r -> events.add("return " + r.getReplyCode() + " " + text(r.getBody())));
        channel.addConfirmListener((tag, multiple) -> events.add("ack"), (tag, multiple) -> events.add("nack"));
        channel.basicPublish("", name("nowhere"), true, MessageProperties.PERSISTENT_BASIC, bytes("lost"));
        equal(channel.waitForConfirms(PATIENCE * 1000), true);
        equal(next(events), "return 312 lost");
        equal(next(events), "ack");
        for (int i = 0; i < 1000; i++) {
            channel.basicPublish("", queue, true, MessageProperties.PERSISTENT_BASIC, bytes(i));
        }
        equal(channel.waitForConfirms(PATIENCE * 1000), true);
        equal(events.contains("nack"), false);
        equal(channel.queueDelete(queue).getMessageCount(), 1000);
    }

    /** The broker tells consumers that their queue is gone; the channel lives on. */
    private static void consumerCancel(Connection connection, Channel channel) throws Exception {
        String queue = name("doomed");
        channel.queueDeclare(queue, true, false, false, Map.of());
        BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
        String tag = channel.basicConsume(queue, true, (t, d) -> {}, cancelled::add);
        connection.createChannel().queueDelete(queue);
        equal(next(cancelled), tag);
        exclusive(channel, name("next"), Map.of());
    }

    /** A refused declaration closes the channel with RabbitMQ's words, and only that. */
    private static void inequivalentArguments(Connection connection, Channel channel) throws Exception {
        String queue = name("args");
        exclusive(channel, queue, Map.of("x-message-ttl", 1000));
        exclusive(channel, queue, Map.of("x-message-ttl", 1000L)); // another width of integer is the same value
        try {
            exclusive(connection.createChannel(), queue, Map.of("x-message-ttl", 2000));
            throw new AssertionError("another time to live was accepted");
        } catch (IOException e) {
            AMQP.Channel.Close close =
                    (AMQP.Channel.Close) ((ShutdownSignalException) e.getCause()).getReason();
            equal(close.getReplyCode(), 406);
            equal(close.getReplyText(), "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + queue
                    + "' in vhost '/': received '2000' but current is '1000'");
        }
        channel.queueDeclarePassive(queue);
    }

    private static void streams(Connection connection, Channel channel) throws Exception {
        String queue = name("stream");
        channel.queueDeclare(queue, true, false, false, Map.of("x-queue-type", "stream"));
        channel.confirmSelect();
        for (int i = 0; i < 20; i++) {
            channel.basicPublish("", queue, null, bytes(i));
        }
        equal(channel.waitForConfirms(PATIENCE * 1000), true);
        for (Object offset : new Object[] {"first", "first", 13}) {
            Channel reader = connection.createChannel();
            reader.basicQos(5);
            BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
            reader.basicConsume(queue, false, Map.of("x-stream-offset", offset), (tag, d) -> inbox.add(d), IGNORE);
            for (long i = offset.equals(13) ? 13 : 0; i < 20; i++) {
                Delivery d = next(inbox);
                equal(d.getProperties().getHeaders().get("x-stream-offset"), i);
                equal(text(d.getBody()), "" + i);
                reader.basicAck(d.getEnvelope().getDeliveryTag(), false);
            }
            reader.close();
        }
        channel.queueDelete(queue);
    }

    /** A message that comes back too often goes to the dead letters, with the count of its deliveries on the way. */
    private static void quorumQueue(Connection connection, Channel channel) throws Exception {
        String queue = name("quorum");
        String dead = name("poison");
        exclusive(channel, dead, Map.of());
        channel.queueDeclare(queue, true, false, false, Map.of("x-queue-type", "quorum", "x-delivery-limit", 2,
                "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        channel.confirmSelect();
        channel.basicPublish("", queue, null, bytes("poison"));
        equal(channel.waitForConfirms(PATIENCE * 1000), true);
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        BlockingQueue<Delivery> poison = new LinkedBlockingQueue<>();
        channel.basicConsume(dead, true, (tag, d) -> poison.add(d), IGNORE);
        channel.basicConsume(queue, false, (tag, d) -> inbox.add(d), IGNORE);
        for (long i = 0; i < 3; i++) {
            Delivery d = next(inbox);
            Map<String, Object> headers = d.getProperties().getHeaders();
            equal(headers == null ? 0L : headers.getOrDefault("x-delivery-count", 0L), i);
            channel.basicReject(d.getEnvelope().getDeliveryTag(), true);
        }
        equal(deaths(next(poison)).get(0).get("reason").toString(), "delivery_limit");
        equal(channel.queueDelete(queue).getMessageCount(), 0);
    }

    /** The client's own recovery: a lost connection comes back with its exclusive queue, binding and consumer. */
    private static void recovery(ConnectionFactory factory) {
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(50);
        check(factory, "recovery", (connection, channel) -> {
            BlockingQueue<String> inbox = new LinkedBlockingQueue<>();
            BlockingQueue<Boolean> recovered = new LinkedBlockingQueue<>();
            ((com.rabbitmq.client.Recoverable) connection).addRecoveryListener(new com.rabbitmq.client.RecoveryListener() {
                @Override
                public void handleRecovery(com.rabbitmq.client.Recoverable r) {
                    recovered.add(true);
                }

                @Override
                public void handleRecoveryStarted(com.rabbitmq.client.Recoverable r) {}
            });
            String exchange = name("recovering");
            channel.exchangeDeclare(exchange, "topic", false, true, Map.of());
            String queue = channel.queueDeclare().getQueue();
            channel.queueBind(queue, exchange, "a.#");
            channel.basicConsume(queue, true, (tag, d) -> inbox.add(text(d.getBody())), IGNORE);
            channel.basicPublish(exchange, "a.b", null, bytes("before"));
            equal(next(inbox), "before");
            // The flag immediate is not served: 540 closes the connection, and the client takes that for a fault.
            connection.createChannel().basicPublish("", queue, false, true, null, bytes("now"));
            next(recovered);
            channel.basicPublish(exchange, "a.c", null, bytes("after"));
            equal(next(inbox), "after");
        });
    }

    private Extensions() {}
}
