import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.ShutdownSignalException;
import com.rabbitmq.client.AMQP;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;

/** More of RabbitMQ's extensions of AMQP 0-9-1 through its Java client, as its users write them. */
public final class Extensions {
    private interface Check {
        void run(Connection connection, Channel channel) throws Exception;
    }

    public static void main(String[] arguments) throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Checks.URI);
        factory.setAutomaticRecoveryEnabled(false);

        check(factory, "rejectPublish", Extensions::rejectPublish);
        check(factory, "priorities", Extensions::priorities);
        check(factory, "singleActiveConsumer", Extensions::singleActiveConsumer);
        check(factory, "delayedExchange", Extensions::delayedExchange);
        check(factory, "inequivalentArguments", Extensions::inequivalentArguments);
        check(factory, "streams", Extensions::streams);
        check(factory, "quorumQueue", Extensions::quorumQueue);
        recoveryAfterClose(factory);
        Checks.finish();
    }

    private static void check(ConnectionFactory factory, String name, Check check) {
        Checks.check(name, () -> {
            try (Connection connection = factory.newConnection()) {
                check.run(connection, connection.createChannel());
            }
        });
    }

    private static List<String> drain(Channel channel, String queue) throws IOException {
        List<String> got = new ArrayList<>();
        for (GetResponse r = channel.basicGet(queue, true); r != null; r = channel.basicGet(queue, true)) {
            got.add(Checks.text(r.getBody()));
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

    /** A full queue refuses: the publisher sees nacks, and what was accepted stays. */
    private static void rejectPublish(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("full");
        exclusive(channel, queue, Map.of("x-max-length", 3, "x-overflow", "reject-publish"));
        channel.confirmSelect();
        StringBuilder outcome = new StringBuilder();
        for (int i = 0; i < 6; i++) {
            channel.basicPublish("", queue, null, Checks.bytes(i));
            outcome.append(channel.waitForConfirms(Checks.PATIENCE * 1000) ? 'a' : 'n');
        }
        Checks.equal(outcome.toString(), "aaannn");
        Checks.equal(drain(channel, queue), List.of("0", "1", "2"));
    }

    private static void priorities(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("priorities");
        exclusive(channel, queue, Map.of("x-max-priority", 5));
        int[] priorities = {0, 5, 1, 5, 9, 3};
        for (int i = 0; i < priorities.length; i++) {
            BasicProperties p = new BasicProperties.Builder().priority(priorities[i]).build();
            channel.basicPublish("", queue, p, Checks.bytes(i));
        }
        Checks.equal(drain(channel, queue), List.of("1", "3", "4", "5", "2", "0")); // 9 counts as 5
    }

    /** One of two consumers gets everything, in order; the other one takes over what the first did not finish. */
    private static void singleActiveConsumer(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("single");
        exclusive(channel, queue, Map.of("x-single-active-consumer", true));
        Channel waiting = connection.createChannel();
        BlockingQueue<Delivery> first = new LinkedBlockingQueue<>();
        BlockingQueue<Delivery> second = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, (tag, d) -> first.add(d), IGNORE);
        waiting.basicConsume(queue, true, (tag, d) -> second.add(d), IGNORE);
        Channel publisher = connection.createChannel();
        for (int i = 0; i < 6; i++) {
            publisher.basicPublish("", queue, null, Checks.bytes(i));
        }
        List<Delivery> got = new ArrayList<>();
        for (int i = 0; i < 6; i++) {
            got.add(Checks.next(first));
        }
        Checks.equal(second.size(), 0);
        channel.basicAck(got.get(3).getEnvelope().getDeliveryTag(), true);
        channel.close();
        for (String want : List.of("4", "5")) {
            Delivery d = Checks.next(second);
            Checks.equal(Checks.text(d.getBody()), want);
            Checks.equal(d.getEnvelope().isRedeliver(), true);
        }
    }

    private static void delayedExchange(Connection connection, Channel channel) throws Exception {
        String exchange = Checks.name("delayed");
        channel.exchangeDeclare(exchange, "x-delayed-message", false, true, Map.of("x-delayed-type", "fanout"));
        String queue = channel.queueDeclare().getQueue();
        channel.queueBind(queue, exchange, "");
        channel.confirmSelect();
        long start = System.nanoTime();
        for (int delay : new int[] {300, 100}) {
            channel.basicPublish(exchange, "", headers(Map.of("x-delay", delay)), Checks.bytes(delay));
        }
        channel.waitForConfirms(Checks.PATIENCE * 1000);
        // Otherwise the order of what is due is that of the publishing.
        boolean quick = System.nanoTime() - start < 100_000_000;
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, true, (tag, d) -> inbox.add(d), IGNORE);
        for (int due : new int[] {100, 300}) {
            Delivery d = Checks.next(inbox);
            long elapsed = (System.nanoTime() - start) / 1_000_000;
            int delay = Integer.parseInt(Checks.text(d.getBody()));
            Checks.equal(delay == due || !quick, true);
            Checks.equal(d.getProperties().getHeaders().get("x-delay"), -delay);
            if (elapsed < delay) {
                throw new AssertionError("came after " + elapsed + " ms, its delay is " + delay);
            }
        }
    }

    /** A refused declaration closes the channel with RabbitMQ's words, and only that. */
    private static void inequivalentArguments(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("args");
        exclusive(channel, queue, Map.of("x-message-ttl", 1000));
        exclusive(channel, queue, Map.of("x-message-ttl", 1000L)); // another width of integer is the same value
        try {
            exclusive(connection.createChannel(), queue, Map.of("x-message-ttl", 2000));
            throw new AssertionError("another time to live was accepted");
        } catch (IOException e) {
            AMQP.Channel.Close close =
                    (AMQP.Channel.Close) ((ShutdownSignalException) e.getCause()).getReason();
            Checks.equal(close.getReplyCode(), 406);
            Checks.equal(close.getReplyText(), "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '" + queue
                    + "' in vhost '/': received '2000' but current is '1000'");
        }
        channel.queueDeclarePassive(queue);
    }

    private static void streams(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("stream");
        channel.queueDeclare(queue, true, false, false, Map.of("x-queue-type", "stream"));
        channel.confirmSelect();
        for (int i = 0; i < 20; i++) {
            channel.basicPublish("", queue, null, Checks.bytes(i));
        }
        Checks.equal(channel.waitForConfirms(Checks.PATIENCE * 1000), true);
        for (Object offset : new Object[] {"first", "first", 13}) {
            Channel reader = connection.createChannel();
            reader.basicQos(5);
            BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
            reader.basicConsume(queue, false, Map.of("x-stream-offset", offset), (tag, d) -> inbox.add(d), IGNORE);
            for (long i = offset.equals(13) ? 13 : 0; i < 20; i++) {
                Delivery d = Checks.next(inbox);
                Checks.equal(d.getProperties().getHeaders().get("x-stream-offset"), i);
                Checks.equal(Checks.text(d.getBody()), "" + i);
                reader.basicAck(d.getEnvelope().getDeliveryTag(), false);
            }
            reader.close();
        }
        channel.queueDelete(queue);
    }

    /** A message that comes back too often goes to the dead letters, with the count of its deliveries on the way. */
    private static void quorumQueue(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("quorum");
        String dead = Checks.name("poison");
        exclusive(channel, dead, Map.of());
        channel.queueDeclare(queue, true, false, false, Map.of("x-queue-type", "quorum", "x-delivery-limit", 2,
                "x-dead-letter-exchange", "", "x-dead-letter-routing-key", dead));
        channel.confirmSelect();
        channel.basicPublish("", queue, null, Checks.bytes("poison"));
        Checks.equal(channel.waitForConfirms(Checks.PATIENCE * 1000), true);
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        BlockingQueue<Delivery> poison = new LinkedBlockingQueue<>();
        channel.basicConsume(dead, true, (tag, d) -> poison.add(d), IGNORE);
        channel.basicConsume(queue, false, (tag, d) -> inbox.add(d), IGNORE);
        for (long i = 0; i < 3; i++) {
            Delivery d = Checks.next(inbox);
            Map<String, Object> headers = d.getProperties().getHeaders();
            Checks.equal(headers == null ? 0L : headers.getOrDefault("x-delivery-count", 0L), i);
            channel.basicReject(d.getEnvelope().getDeliveryTag(), true);
        }
        Checks.equal(deaths(Checks.next(poison)).get(0).get("reason").toString(), "delivery_limit");
        Checks.equal(channel.queueDelete(queue).getMessageCount(), 0);
    }

    /** The client's own recovery: a lost connection comes back with its exclusive queue, binding and consumer. */
    private static void recoveryAfterClose(ConnectionFactory factory) {
        factory.setAutomaticRecoveryEnabled(true);
        factory.setNetworkRecoveryInterval(50);
        check(factory, "recoveryAfterClose", (connection, channel) -> {
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
            String exchange = Checks.name("recovering");
            channel.exchangeDeclare(exchange, "topic", false, true, Map.of());
            String queue = channel.queueDeclare().getQueue();
            channel.queueBind(queue, exchange, "a.#");
            channel.basicConsume(queue, true, (tag, d) -> inbox.add(Checks.text(d.getBody())), IGNORE);
            channel.basicPublish(exchange, "a.b", null, Checks.bytes("before"));
            Checks.equal(Checks.next(inbox), "before");
            // The flag immediate is not served: 540 closes the connection, and the client takes that for a fault.
            connection.createChannel().basicPublish("", queue, false, true, null, Checks.bytes("now"));
            Checks.next(recovered);
            channel.basicPublish(exchange, "a.c", null, Checks.bytes("after"));
            Checks.equal(Checks.next(inbox), "after");
        });
    }

    private Extensions() {}
}
