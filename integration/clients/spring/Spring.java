import com.rabbitmq.client.Channel;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.springframework.amqp.AmqpException;
import org.springframework.amqp.AmqpRejectAndDontRequeueException;
import org.springframework.amqp.core.AcknowledgeMode;
import org.springframework.amqp.core.AnonymousQueue;
import org.springframework.amqp.core.Binding;
import org.springframework.amqp.core.BindingBuilder;
import org.springframework.amqp.core.Declarable;
import org.springframework.amqp.core.Declarables;
import org.springframework.amqp.core.MessageBuilder;
import org.springframework.amqp.core.MessageDeliveryMode;
import org.springframework.amqp.core.Queue;
import org.springframework.amqp.core.QueueBuilder;
import org.springframework.amqp.core.TopicExchange;
import org.springframework.amqp.rabbit.connection.CachingConnectionFactory;
import org.springframework.amqp.rabbit.connection.CorrelationData;
import org.springframework.amqp.rabbit.core.RabbitAdmin;
import org.springframework.amqp.rabbit.core.RabbitTemplate;
import org.springframework.amqp.rabbit.listener.AbstractMessageListenerContainer;
import org.springframework.amqp.rabbit.listener.DirectMessageListenerContainer;
import org.springframework.amqp.rabbit.listener.SimpleMessageListenerContainer;
import org.springframework.amqp.rabbit.listener.api.ChannelAwareMessageListener;
import org.springframework.context.support.GenericApplicationContext;
import org.springframework.util.backoff.FixedBackOff;

/**
 * The scenarios with Spring AMQP, as an application without Boot: declarations by RabbitAdmin, a template with correlated confirms, and
 * both kinds of listener containers. It prints a line per check and "N passed, N failed" at the end.
 */
public final class Spring {
    private static final String RUN = UUID.randomUUID().toString().substring(0, 8);

    private interface Check {
        void run(Application application) throws Exception;
    }

    public static void main(String[] arguments) {
        check("confirms", Spring::confirms);
        check("returns", Spring::returns);
        check("prefetch", Spring::prefetch);
        check("retry", Spring::retry);
        check("rpc", Spring::rpc);
        check("cancel", Spring::cancel);
        check("bodies", Spring::bodies);
        check("anonymousQueue", Spring::anonymousQueue);
        check("singleActiveConsumer", Spring::singleActiveConsumer);
        Checks.check("recovery", "AMQP_CTL", with(Spring::recovery));
        Checks.finish();
    }

    private static void check(String name, Check check) {
        Checks.check(name, with(check));
    }

    /** Gives a check an application of its own. */
    private static Checks.Check with(Check check) {
        return () -> {
            try (Application application = new Application()) {
                check.run(application);
            }
        };
    }

    /** What a configuration class would declare. */
    private static final class Application implements AutoCloseable {
        final CachingConnectionFactory connections = new CachingConnectionFactory();
        final GenericApplicationContext context = new GenericApplicationContext();
        final RabbitAdmin admin;
        final RabbitTemplate template;
        private final List<AbstractMessageListenerContainer> containers = new ArrayList<>();
        private final List<Queue> queues = new ArrayList<>();

        Application() {
            connections.setUri(System.getenv().getOrDefault("AMQP_URL", "amqp://guest:guest@localhost:5672").replaceAll("/$", ""));
            connections.setPublisherConfirmType(CachingConnectionFactory.ConfirmType.CORRELATED);
            connections.setPublisherReturns(true);
            admin = new RabbitAdmin(connections);
            admin.setApplicationContext(context);
            template = new RabbitTemplate(connections);
            template.setMandatory(true);
            template.setReplyTimeout(Checks.PATIENCE * 1000);
            context.refresh();
            admin.afterPropertiesSet();
        }

        /** Makes beans of declarations, which the admin declares on every new connection. */
        void declare(Declarable... declarables) {
            context.getBeanFactory().registerSingleton("declarables" + queues.size() + context.getBeanDefinitionCount(), new Declarables(declarables));
            for (Declarable d : declarables) {
                if (d instanceof Queue q) {
                    queues.add(q);
                }
            }
            admin.initialize();
        }

        <C extends AbstractMessageListenerContainer> C listen(C container, String queue, ChannelAwareMessageListener listener) {
            container.setQueueNames(queue);
            container.setMessageListener(listener);
            container.setApplicationContext(context);
            container.setAmqpAdmin(admin);
            container.setRecoveryBackOff(new FixedBackOff(100, FixedBackOff.UNLIMITED_ATTEMPTS));
            container.setFailedDeclarationRetryInterval(100);
            container.setShutdownTimeout(1000);
            container.afterPropertiesSet();
            container.start();
            containers.add(container);
            return container;
        }

        @Override
        public void close() {
            containers.forEach(AbstractMessageListenerContainer::stop);
            queues.forEach(q -> admin.deleteQueue(q.getActualName()));
            context.close();
            connections.destroy();
        }
    }

    private static String name(String hint) {
        return "clients-spring-" + RUN + "-" + hint;
    }

    private static boolean confirmed(CorrelationData correlation) throws Exception {
        return correlation.getFuture().get(Checks.PATIENCE, TimeUnit.SECONDS).isAck();
    }

    private static void confirms(Application a) throws Exception {
        a.declare(new Queue(name("confirms")));
        List<CorrelationData> sent = new ArrayList<>();
        for (int i = 0; i < 1000; i++) {
            CorrelationData correlation = new CorrelationData("" + i);
            a.template.convertAndSend("", name("confirms"), "" + i, m -> m, correlation);
            sent.add(correlation);
        }
        for (CorrelationData correlation : sent) {
            Checks.equal(confirmed(correlation), true);
        }
        Checks.equal(a.admin.getQueueInfo(name("confirms")).getMessageCount(), 1000);
    }

    /** The template promises that the returned message is there when the confirm comes. */
    private static void returns(Application a) throws Exception {
        for (int i = 0; i < 100; i++) {
            CorrelationData correlation = new CorrelationData("" + i);
            a.template.convertAndSend("", name("nobody"), "lost " + i, m -> m, correlation);
            Checks.equal(confirmed(correlation), true);
            Checks.equal(correlation.getReturned().getReplyCode() + " " + correlation.getReturned().getReplyText(), "312 NO_ROUTE");
            Checks.equal(Checks.text(correlation.getReturned().getMessage().getBody()), "lost " + i);
        }
    }

    private static void prefetch(Application a) throws Exception {
        a.declare(new Queue(name("prefetch")));
        for (int i = 0; i < 10; i++) {
            a.template.convertAndSend("", name("prefetch"), "" + i);
        }
        BlockingQueue<String> got = new LinkedBlockingQueue<>();
        List<Runnable> acks = new ArrayList<>();
        DirectMessageListenerContainer container = new DirectMessageListenerContainer(a.connections);
        container.setPrefetchCount(5);
        container.setAcknowledgeMode(AcknowledgeMode.MANUAL);
        a.listen(container, name("prefetch"), (message, channel) -> {
            long tag = message.getMessageProperties().getDeliveryTag();
            acks.add(() -> ack(channel, tag));
            got.add(Checks.text(message.getBody()));
        });
        for (int i = 0; i < 5; i++) {
            Checks.equal(Checks.next(got), "" + i);
        }
        Checks.equal(a.admin.getQueueInfo(name("prefetch")).getMessageCount(), 5); // ready
        acks.get(4).run();
        for (int i = 5; i < 10; i++) {
            Checks.equal(Checks.next(got), "" + i);
        }
        acks.get(9).run();
    }

    private static void ack(Channel channel, long tag) {
        try {
            channel.basicAck(tag, true);
        } catch (java.io.IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }

    private static void retry(Application a) throws Exception {
        a.declare(
            QueueBuilder.durable(name("work")).deadLetterExchange("").deadLetterRoutingKey(name("wait")).build(),
            QueueBuilder.durable(name("wait")).ttl(50).deadLetterExchange("").deadLetterRoutingKey(name("work")).build());
        BlockingQueue<Long> tries = new LinkedBlockingQueue<>();
        a.listen(new SimpleMessageListenerContainer(a.connections), name("work"), (message, channel) -> {
            List<Map<String, ?>> deaths = message.getMessageProperties().getXDeathHeader();
            long count = deaths == null ? 0 : deaths.stream().filter(d -> d.get("reason").equals("rejected")).mapToLong(d -> (Long) d.get("count")).sum();
            tries.add(count);
            if (count < 3) {
                throw new AmqpRejectAndDontRequeueException("as planned");
            }
        });
        a.template.convertAndSend("", name("work"), "job");
        for (long i = 0; i < 4; i++) {
            Checks.equal(Checks.next(tries), i);
        }
    }

    private static void rpc(Application a) throws Exception {
        a.declare(new Queue(name("rpc")));
        a.listen(new DirectMessageListenerContainer(a.connections), name("rpc"), (message, channel) -> {
            String reply = message.getMessageProperties().getReplyTo();
            String correlation = message.getMessageProperties().getCorrelationId();
            a.template.send("", reply, MessageBuilder.withBody(("" + 2 * Integer.parseInt(Checks.text(message.getBody()))).getBytes()).setCorrelationId(correlation).setContentType("text/plain").build());
        });
        List<Thread> askers = new ArrayList<>();
        Set<String> answers = ConcurrentHashMap.newKeySet();
        for (int i = 0; i < 20; i++) {
            String n = "" + i;
            Thread asker = new Thread(() -> answers.add(n + " " + a.template.convertSendAndReceive("", name("rpc"), n)));
            asker.start();
            askers.add(asker);
        }
        for (Thread asker : askers) {
            asker.join();
        }
        for (int i = 0; i < 20; i++) {
            Checks.equal(answers.contains(i + " " + 2 * i), true);
        }
    }

    /** The container's consumer is cancelled with its queue, and starts again when the admin has declared that anew. */
    private static void cancel(Application a) throws Exception {
        a.declare(new Queue(name("cancel")));
        BlockingQueue<String> got = new LinkedBlockingQueue<>();
        SimpleMessageListenerContainer container = new SimpleMessageListenerContainer(a.connections);
        container.setMissingQueuesFatal(false);
        a.listen(container, name("cancel"), (message, channel) -> got.add(Checks.text(message.getBody())));
        Checks.await(() -> a.admin.getQueueInfo(name("cancel")) != null && a.admin.getQueueInfo(name("cancel")).getConsumerCount() == 1);
        a.admin.deleteQueue(name("cancel"));
        Checks.await(() -> a.admin.getQueueInfo(name("cancel")) != null && a.admin.getQueueInfo(name("cancel")).getConsumerCount() == 1);
        a.template.convertAndSend("", name("cancel"), "again");
        Checks.equal(Checks.next(got), "again");
    }

    private static void bodies(Application a) throws Exception {
        a.declare(new Queue(name("bodies")));
        for (int size : new int[] {0, 1, 131072 - 8, 131072 - 7, 131072, 4 << 20}) {
            byte[] body = new byte[size];
            new java.util.Random(size).nextBytes(body);
            a.template.send("", name("bodies"), MessageBuilder.withBody(body).build());
            Checks.equal(java.util.Arrays.equals(a.template.receive(name("bodies"), Checks.PATIENCE * 1000).getBody(), body), true);
        }
    }

    /** Exclusive, deleted with its connection, with the locator of its leader that Spring asks for. */
    private static void anonymousQueue(Application a) throws Exception {
        AnonymousQueue queue = new AnonymousQueue();
        TopicExchange exchange = new TopicExchange(name("topic"), false, true);
        Binding binding = BindingBuilder.bind(queue).to(exchange).with("a.#");
        a.declare(exchange, queue, binding);
        BlockingQueue<String> got = new LinkedBlockingQueue<>();
        a.listen(new SimpleMessageListenerContainer(a.connections), queue.getName(), (message, channel) -> got.add(Checks.text(message.getBody())));
        a.template.convertAndSend(name("topic"), "a.b", "hello");
        Checks.equal(Checks.next(got), "hello");
    }

    private static void singleActiveConsumer(Application a) throws Exception {
        a.declare(QueueBuilder.durable(name("single")).quorum().singleActiveConsumer().build());
        BlockingQueue<String> got = new LinkedBlockingQueue<>();
        Set<String> consumers = ConcurrentHashMap.newKeySet();
        SimpleMessageListenerContainer container = new SimpleMessageListenerContainer(a.connections);
        container.setConcurrentConsumers(3);
        a.listen(container, name("single"), (message, channel) -> {
            consumers.add(message.getMessageProperties().getConsumerTag());
            got.add(Checks.text(message.getBody()));
        });
        for (int i = 0; i < 50; i++) {
            a.template.convertAndSend("", name("single"), "" + i);
        }
        for (int i = 0; i < 50; i++) {
            Checks.equal(Checks.next(got), "" + i);
        }
        Checks.equal(consumers.size(), 1);
    }

    private static void recovery(Application a) throws Exception {
        TopicExchange exchange = new TopicExchange(name("recovery-x"));
        Queue queue = new Queue(name("recovery"));
        AnonymousQueue own = new AnonymousQueue();
        a.declare(exchange, queue, own, BindingBuilder.bind(queue).to(exchange).with("a.#"), BindingBuilder.bind(own).to(exchange).with("a.#"));
        Set<String> got = ConcurrentHashMap.newKeySet();
        Set<String> copies = ConcurrentHashMap.newKeySet();
        a.listen(new SimpleMessageListenerContainer(a.connections), name("recovery"), (message, channel) -> got.add(Checks.text(message.getBody())));
        DirectMessageListenerContainer direct = new DirectMessageListenerContainer(a.connections);
        direct.setMonitorInterval(100);
        a.listen(direct, own.getName(), (message, channel) -> copies.add(Checks.text(message.getBody())));
        for (int i = 0; i < 300; i++) {
            if (i == 100 || i == 200) {
                Checks.broker("kill");
                Checks.broker("start");
            }
            String body = "" + i;
            Checks.await(() -> {
                CorrelationData correlation = new CorrelationData(body);
                try {
                    a.template.send(name("recovery-x"), "a.b", MessageBuilder.withBody(body.getBytes()).setDeliveryMode(MessageDeliveryMode.PERSISTENT).build(), correlation);
                    return confirmed(correlation);
                } catch (AmqpException e) {
                    return false;
                } catch (Exception e) {
                    throw new IllegalStateException(e);
                }
            });
        }
        Checks.await(() -> got.size() == 300);
        Checks.await(() -> {
            a.template.convertAndSend(name("recovery-x"), "a.b", "last");
            return copies.contains("last");
        });
        a.admin.deleteExchange(name("recovery-x"));
    }
}
