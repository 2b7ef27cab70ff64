import com.rabbitmq.client.AMQP.BasicProperties;
import com.rabbitmq.client.AlreadyClosedException;
import com.rabbitmq.client.BlockedListener;
import com.rabbitmq.client.CancelCallback;
import com.rabbitmq.client.Channel;
import com.rabbitmq.client.Connection;
import com.rabbitmq.client.ConnectionFactory;
import com.rabbitmq.client.Delivery;
import com.rabbitmq.client.GetResponse;
import com.rabbitmq.client.LongString;
import com.rabbitmq.client.MessageProperties;
import com.rabbitmq.client.Recoverable;
import com.rabbitmq.client.RecoveryListener;
import com.rabbitmq.client.ShutdownSignalException;
import java.io.IOException;
import java.math.BigDecimal;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Date;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** The scenarios with RabbitMQ's Java client, as its users write them. */
public final class Scenarios {
    private interface Check {
        void run(Connection connection, Channel channel) throws Exception;
    }

    private static final CancelCallback IGNORE = tag -> {};

    public static void main(String[] arguments) {
        Checks.check("recovery", "AMQP_CTL", Scenarios::recovery);
        check("confirms", Scenarios::confirms);
        check("returns", Scenarios::returns);
        check("prefetch", Scenarios::prefetch);
        check("retry", Scenarios::retry);
        check("rpc", Scenarios::rpc);
        Checks.check("blocked", "AMQP_CTL", Scenarios::blocked);
        Checks.check("tls", "AMQPS_URL", Scenarios::tls);
        check("cancel", Scenarios::cancel);
        check("bodies", Scenarios::bodies);
        check("headers", Scenarios::headers);
        Checks.finish();
    }

    private static ConnectionFactory factory() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Checks.URI);
        return factory;
    }

    private static void check(String name, Check check) {
        Checks.check(name, () -> {
            try (Connection connection = factory().newConnection()) {
                check.run(connection, connection.createChannel());
            }
        });
    }

    private static void exclusive(Channel channel, String queue, Map<String, Object> arguments) throws IOException {
        channel.queueDeclare(queue, false, true, false, arguments);
    }

    /** The client's automatic recovery, with its topology: the publisher only has to publish again what was not confirmed. */
    private static void recovery() throws Exception {
        ConnectionFactory factory = factory();
        factory.setNetworkRecoveryInterval(100);
        try (Connection connection = factory.newConnection()) {
            BlockingQueue<Boolean> recovered = new LinkedBlockingQueue<>();
            ((Recoverable) connection).addRecoveryListener(new RecoveryListener() {
                @Override
                public void handleRecovery(Recoverable r) {
                    recovered.add(true);
                }

                @Override
                public void handleRecoveryStarted(Recoverable r) {}
            });
            String exchange = Checks.name("recovery");
            String queue = Checks.name("recovery-durable");
            Channel consumer = connection.createChannel();
            consumer.exchangeDeclare(exchange, "topic", true);
            consumer.queueDeclare(queue, true, false, false, null);
            consumer.queueBind(queue, exchange, "n.#");
            String own = consumer.queueDeclare().getQueue();
            consumer.queueBind(own, exchange, "n.#");
            consumer.basicQos(10);

            Map<String, Integer> publishings = new ConcurrentHashMap<>();
            Set<String> arrived = ConcurrentHashMap.newKeySet();
            Set<String> unflagged = ConcurrentHashMap.newKeySet();
            Set<String> copies = ConcurrentHashMap.newKeySet();
            consumer.basicConsume(queue, false, (tag, d) -> {
                String body = Checks.text(d.getBody());
                if (!arrived.add(body) && !d.getEnvelope().isRedeliver() && publishings.get(body) == 1) {
                    unflagged.add(body);
                }
                try {
                    consumer.basicAck(d.getEnvelope().getDeliveryTag(), false);
                } catch (AlreadyClosedException e) {
                    // it comes again
                }
            }, IGNORE);
            consumer.basicConsume(own, true, (tag, d) -> copies.add(Checks.text(d.getBody())), IGNORE);

            Channel publisher = connection.createChannel();
            publisher.confirmSelect();
            CompletableFuture<Void> killer = CompletableFuture.completedFuture(null);
            for (int i = 0; i < 300; i++) {
                if (i == 100 || i == 200) {
                    killer.get();
                    killer = CompletableFuture.runAsync(Scenarios::killAndStart);
                }
                for (boolean confirmed = false; !confirmed; ) {
                    try {
                        publishings.merge("" + i, 1, Integer::sum);
                        publisher.basicPublish(exchange, "n." + i, MessageProperties.PERSISTENT_BASIC, Checks.bytes(i));
                        confirmed = publisher.waitForConfirms(Checks.PATIENCE * 1000);
                    } catch (ShutdownSignalException | IOException e) {
                        Checks.next(recovered);
                    }
                }
            }
            killer.get();
            Checks.await(() -> arrived.size() == 300);
            Checks.equal(unflagged, Set.of());
            // The second death may have come after the last confirm: so once more, to the queue that was declared anew.
            Checks.await(() -> {
                try {
                    publisher.basicPublish(exchange, "n.last", null, Checks.bytes("last"));
                } catch (ShutdownSignalException e) {
                    return false;
                }
                return copies.contains("last") && arrived.contains("last");
            });
            publisher.queueDelete(queue);
            publisher.exchangeDelete(exchange);
        }
    }

    private static void killAndStart() {
        try {
            Checks.broker("kill");
            Checks.broker("start");
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static void confirms(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("confirms");
        channel.queueDeclare(queue, true, false, false, null);
        channel.confirmSelect();
        Set<Long> unconfirmed = ConcurrentHashMap.newKeySet();
        Set<Long> refused = ConcurrentHashMap.newKeySet();
        channel.addConfirmListener(
                (tag, multiple) -> unconfirmed.removeIf(t -> t == tag || multiple && t < tag),
                (tag, multiple) -> refused.add(tag));
        for (int i = 0; i < 1000; i++) {
            unconfirmed.add(channel.getNextPublishSeqNo());
            channel.basicPublish("", queue, MessageProperties.PERSISTENT_BASIC, Checks.bytes(i));
        }
        Checks.await(unconfirmed::isEmpty);
        Checks.equal(refused, Set.of());
        Checks.equal(channel.queueDelete(queue).getMessageCount(), 1000);
    }

    private static void returns(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("returns");
        exclusive(channel, queue, Map.of());
        channel.confirmSelect();
        BlockingQueue<String> events = new LinkedBlockingQueue<>();
        channel.addReturnListener(
                r -> events.add("return " + r.getReplyCode() + " " + r.getReplyText() + " " + Checks.text(r.getBody())));
        channel.addConfirmListener((tag, multiple) -> events.add("ack " + tag), (tag, multiple) -> events.add("nack " + tag));
        channel.basicPublish("", Checks.name("nowhere"), true, MessageProperties.PERSISTENT_BASIC, Checks.bytes("lost"));
        Checks.equal(Checks.next(events), "return 312 NO_ROUTE lost");
        Checks.equal(Checks.next(events), "ack 1");
        channel.basicPublish("", queue, true, MessageProperties.PERSISTENT_BASIC, Checks.bytes("kept"));
        Checks.equal(Checks.next(events), "ack 2");
        Checks.equal(channel.messageCount(queue), 1L);
    }

    private static void prefetch(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("prefetch");
        exclusive(channel, queue, Map.of());
        for (int i = 0; i < 12; i++) {
            channel.basicPublish("", queue, null, Checks.bytes(i));
        }
        channel.basicQos(5);
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, false, (tag, d) -> inbox.add(d), IGNORE);
        List<Long> tags = new ArrayList<>();
        // Acknowledges up to that one of the deliveries; then so many come, and no more.
        for (int[] step : new int[][] {{0, 5}, {1, 1}, {4, 3}}) {
            if (step[0] > 0) {
                channel.basicAck(tags.get(step[0] - 1), step[0] > 1);
            }
            for (int i = 0; i < step[1]; i++) {
                Delivery d = Checks.next(inbox);
                Checks.equal(Checks.text(d.getBody()), "" + tags.size());
                tags.add(d.getEnvelope().getDeliveryTag());
            }
            Checks.equal(channel.messageCount(queue), 12L - tags.size());
            Checks.equal(inbox.size(), 0);
        }
    }

    @SuppressWarnings("unchecked")
    private static List<Map<String, Object>> deaths(Delivery d) {
        Map<String, Object> headers = d.getProperties().getHeaders();
        return headers == null ? List.of() : (List<Map<String, Object>>) headers.getOrDefault("x-death", List.of());
    }

    /** How often a queue rejected the message, as far as it tells. */
    private static long rejections(Delivery d, String queue) {
        return deaths(d).stream()
                .filter(death -> death.get("queue").toString().equals(queue) && death.get("reason").toString().equals("rejected"))
                .mapToLong(death -> (Long) death.get("count")).findFirst().orElse(0);
    }

    private static void retry(Connection connection, Channel channel) throws Exception {
        String exchange = Checks.name("dlx");
        String work = Checks.name("work");
        String wait = Checks.name("wait");
        channel.exchangeDeclare(exchange, "direct", false, true, null);
        exclusive(channel, work, Map.of("x-dead-letter-exchange", exchange, "x-dead-letter-routing-key", "wait"));
        exclusive(channel, wait,
                Map.of("x-message-ttl", 50, "x-dead-letter-exchange", exchange, "x-dead-letter-routing-key", "work"));
        channel.queueBind(work, exchange, "work");
        channel.queueBind(wait, exchange, "wait");
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(work, false, (tag, d) -> inbox.add(d), IGNORE);
        BasicProperties properties = new BasicProperties.Builder().headers(Map.of("app", "kept")).build();
        channel.basicPublish(exchange, "work", properties, Checks.bytes("job"));
        for (long tries = 0; tries < 3; tries++) {
            Delivery d = Checks.next(inbox);
            Checks.equal(rejections(d, work), tries);
            channel.basicReject(d.getEnvelope().getDeliveryTag(), false);
        }
        Delivery last = Checks.next(inbox);
        channel.basicAck(last.getEnvelope().getDeliveryTag(), false);
        Checks.equal(last.getProperties().getHeaders().get("app").toString(), "kept");
        Checks.equal(last.getProperties().getHeaders().get("x-first-death-queue").toString(), work);
        Checks.equal(last.getProperties().getHeaders().get("x-first-death-reason").toString(), "rejected");
        List<String> got = new ArrayList<>();
        for (Map<String, Object> d : deaths(last)) {
            got.add(d.get("queue") + " " + d.get("reason") + " " + d.get("count") + " " + d.get("routing-keys"));
        }
        Checks.equal(got, List.of(wait + " expired 3 [wait]", work + " rejected 3 [work]"));
    }

    private static void rpc(Connection connection, Channel client) throws Exception {
        Channel server = connection.createChannel();
        String queue = Checks.name("rpc");
        exclusive(server, queue, Map.of());
        server.basicConsume(queue, true, (tag, d) -> {
            BasicProperties p = new BasicProperties.Builder().correlationId(d.getProperties().getCorrelationId()).build();
            server.basicPublish("", d.getProperties().getReplyTo(), p, Checks.bytes("answer " + Checks.text(d.getBody())));
        }, IGNORE);
        Map<String, CompletableFuture<String>> calls = new ConcurrentHashMap<>();
        client.basicConsume("amq.rabbitmq.reply-to", true,
                (tag, d) -> calls.get(d.getProperties().getCorrelationId()).complete(Checks.text(d.getBody())), IGNORE);
        for (int i = 0; i < 20; i++) {
            calls.put("call " + i, new CompletableFuture<>());
            BasicProperties p =
                    new BasicProperties.Builder().replyTo("amq.rabbitmq.reply-to").correlationId("call " + i).build();
            client.basicPublish("", queue, p, Checks.bytes(i));
        }
        for (int i = 0; i < 20; i++) {
            Checks.equal(calls.get("call " + i).get(Checks.PATIENCE, TimeUnit.SECONDS), "answer " + i);
        }
    }

    private static void blocked() throws Exception {
        try (Connection publishing = factory().newConnection(); Connection consuming = factory().newConnection()) {
            String queue = Checks.name("blocked");
            Channel consumer = consuming.createChannel();
            Channel publisher = publishing.createChannel();
            consumer.queueDeclare(queue, true, false, false, null);
            consumer.basicQos(1);
            publisher.confirmSelect();
            BlockingQueue<String> events = new LinkedBlockingQueue<>();
            publishing.addBlockedListener(new BlockedListener() {
                @Override
                public void handleBlocked(String reason) {
                    events.add("blocked: " + reason);
                }

                @Override
                public void handleUnblocked() {
                    events.add("unblocked");
                }
            });
            for (int i = 0; i < 10; i++) {
                publisher.basicPublish("", queue, null, Checks.bytes(i));
            }
            Checks.equal(publisher.waitForConfirms(Checks.PATIENCE * 1000), true);
            publisher.addConfirmListener((tag, multiple) -> events.add("ack"), (tag, multiple) -> events.add("nack"));

            Checks.broker("block");
            try {
                publisher.basicPublish("", queue, null, Checks.bytes(10));
                Checks.equal(Checks.next(events).startsWith("blocked: "), true);
                BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
                consumer.basicConsume(queue, false, (tag, d) -> inbox.add(d), IGNORE);
                for (int i = 0; i < 10; i++) {
                    Delivery d = Checks.next(inbox);
                    Checks.equal(Checks.text(d.getBody()), "" + i);
                    consumer.basicAck(d.getEnvelope().getDeliveryTag(), false);
                }
                Checks.equal(consumer.messageCount(queue), 0L);
                Checks.equal(events.size(), 0);
            } finally {
                Checks.broker("unblock");
            }
            Set<String> both = new HashSet<>(List.of(Checks.next(events), Checks.next(events)));
            Checks.equal(both, Set.of("unblocked", "ack"));
            publisher.queueDelete(queue);
        }
    }

    private static void tls() throws Exception {
        ConnectionFactory factory = new ConnectionFactory();
        factory.setUri(Checks.uri("AMQPS_URL", ""));
        factory.useSslProtocol(Checks.tls("client"));
        factory.enableHostnameVerification();
        try (Connection connection = factory.newConnection()) {
            Channel channel = connection.createChannel();
            String queue = channel.queueDeclare().getQueue();
            channel.basicPublish("", queue, null, Checks.bytes("secret"));
            BlockingQueue<String> inbox = new LinkedBlockingQueue<>();
            channel.basicConsume(queue, true, (tag, d) -> inbox.add(Checks.text(d.getBody())), IGNORE);
            Checks.equal(Checks.next(inbox), "secret");
        }
        for (String certificate : Arrays.asList("other", null)) {
            factory.useSslProtocol(Checks.tls(certificate));
            try {
                factory.newConnection().abort();
            } catch (IOException refused) {
                continue;
            }
            throw new AssertionError("connected with the certificate " + certificate);
        }
    }

    private static void cancel(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("cancel");
        channel.queueDeclare(queue, true, false, false, null);
        BlockingQueue<String> cancelled = new LinkedBlockingQueue<>();
        String tag = channel.basicConsume(queue, true, (t, d) -> {}, cancelled::add);
        connection.createChannel().queueDelete(queue);
        Checks.equal(Checks.next(cancelled), tag);
        exclusive(channel, Checks.name("next"), Map.of()); // the channel lives on
    }

    private static void bodies(Connection connection, Channel channel) throws Exception {
        String queue = Checks.name("bodies");
        exclusive(channel, queue, Map.of());
        BlockingQueue<Delivery> inbox = new LinkedBlockingQueue<>();
        channel.basicConsume(queue, true, (tag, d) -> inbox.add(d), IGNORE);
        int frame = connection.getFrameMax() - 8; // a frame's head and end are 8 bytes
        for (int size : new int[] {0, 1, frame, frame + 1, 4 << 20}) {
            byte[] body = new byte[size];
            new Random(size).nextBytes(body);
            channel.basicPublish("", queue, null, body);
            Checks.equal(Arrays.equals(Checks.next(inbox).getBody(), body), true);
        }
    }

    private static void headers(Connection connection, Channel channel) throws Exception {
        Date second = new Date(1_700_000_000_000L);
        Map<String, Object> sent = new HashMap<>();
        sent.put("true", true);
        sent.put("false", false);
        sent.put("byte", (byte) 100);
        sent.put("negative byte", Byte.MIN_VALUE);
        sent.put("short", Short.MAX_VALUE);
        sent.put("negative short", Short.MIN_VALUE);
        sent.put("int", Integer.MAX_VALUE);
        sent.put("negative int", Integer.MIN_VALUE);
        sent.put("long", Long.MAX_VALUE);
        sent.put("negative long", Long.MIN_VALUE);
        sent.put("float", 1.5f);
        sent.put("double", -2.25e100);
        sent.put("decimal", new BigDecimal("1234.5678"));
        sent.put("timestamp", second);
        sent.put("string", "Grüße, 世界 🐇");
        sent.put("empty", "");
        sent.put("bytes", new byte[] {0, -1, 127});
        sent.put("table", Map.of("inner", Map.of("list", List.of(1, "two", Map.of("three", 3L)))));
        sent.put("list", Arrays.asList((short) 1, 2L, "three", null, false, List.of(1.5)));
        sent.put("null", null);
        BasicProperties properties = new BasicProperties.Builder().headers(sent)
                .contentType("text/plain").contentEncoding("utf-8").deliveryMode(2).priority(7).correlationId("correlation")
                .replyTo("reply").expiration("60000").messageId("message").timestamp(second).type("type").userId("guest")
                .appId("app").clusterId("cluster").build();
        String queue = Checks.name("headers");
        exclusive(channel, queue, Map.of());
        channel.basicPublish("", queue, properties, Checks.bytes("body"));
        GetResponse got = channel.basicGet(queue, true);
        Checks.equal(readable(got.getProps().getHeaders()), readable(sent));
        Checks.equal(got.getProps().builder().headers(null).build(), properties.builder().headers(null).build());
    }

    /** A value with the class of each part, to compare by: strings come back as LongString, and arrays have no equality. */
    private static String readable(Object value) {
        if (value instanceof Map<?, ?> table) {
            Map<String, String> sorted = new TreeMap<>();
            table.forEach((k, v) -> sorted.put(k.toString(), readable(v)));
            return "table " + sorted;
        }
        if (value instanceof List<?> list) {
            return "list " + list.stream().map(Scenarios::readable).toList();
        }
        if (value instanceof byte[] array) {
            return "bytes " + Arrays.toString(array);
        }
        if (value instanceof String || value instanceof LongString) {
            return "string " + value;
        }
        return value == null ? "null" : value.getClass().getSimpleName() + " " + value;
    }

    private Scenarios() {}
}
