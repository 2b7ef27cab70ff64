import java.io.InputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * What the programs in this folder share. They print a line per check and "N passed, N failed" at the end, and exit with 1 if one
 * failed. Queues and exchanges have names of their own and are removed.
 */
final class Checks {
    static final String URI = uri("AMQP_URL", "amqp://guest:guest@localhost:5672");
    static final long PATIENCE = 30; // seconds for anything that must happen
    private static final String RUN = UUID.randomUUID().toString().substring(0, 8);

    interface Check {
        void run() throws Exception;
    }

    private static int passed;
    private static int failed;

    static void check(String name, Check check) {
        try {
            check.run();
            passed++;
            System.out.println("ok   " + name);
        } catch (Exception | AssertionError e) {
            failed++;
            System.out.println("FAIL " + name);
            e.printStackTrace(System.out);
        }
    }

    /** Runs a check that needs something of the environment, or says that it is skipped. */
    static void check(String name, String variable, Check check) {
        if (System.getenv(variable) == null) {
            System.out.println("skip " + name + ": without " + variable);
        } else {
            check(name, check);
        }
    }

    static void finish() {
        System.out.println(passed + " passed, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }

    /** The address without the slash at its end, which the Java client would take for the vhost with the empty name. */
    static String uri(String variable, String otherwise) {
        return System.getenv().getOrDefault(variable, otherwise).replaceAll("/$", "");
    }

    static String name(String hint) {
        return "clients-java-" + RUN + "-" + hint;
    }

    static byte[] bytes(Object body) {
        return body.toString().getBytes(StandardCharsets.UTF_8);
    }

    static String text(byte[] body) {
        return new String(body, StandardCharsets.UTF_8);
    }

    static void equal(Object got, Object want) {
        if (!want.equals(got)) {
            throw new AssertionError("got " + got + ", want " + want);
        }
    }

    static <T> T next(BlockingQueue<T> inbox) throws Exception {
        T item = inbox.poll(PATIENCE, TimeUnit.SECONDS);
        if (item == null) {
            throw new TimeoutException("what should have happened did not");
        }
        return item;
    }

    static void await(Callable<Boolean> condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(PATIENCE);
        while (!condition.call()) {
            if (System.nanoTime() > end) {
                throw new TimeoutException("what should have happened did not");
            }
            Thread.sleep(10);
        }
    }

    /** Does something with the broker: kill, stop, start, block, unblock. */
    static void broker(String command) throws Exception {
        Process process = new ProcessBuilder(System.getenv("AMQP_CTL"), command).inheritIO().start();
        equal(process.waitFor(), 0);
    }

    /** What a TLS client needs, with the certificate of that name, or without one if it is null. */
    static SSLContext tls(String certificate) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        trusted.setCertificateEntry("ca", certificate("ca"));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);

        KeyStore own = KeyStore.getInstance(KeyStore.getDefaultType());
        own.load(null);
        if (certificate != null) {
            own.setKeyEntry("own", key(certificate), new char[0], new Certificate[] {certificate(certificate)});
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);

        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    private static Path pem(String name) {
        return Path.of(System.getenv("BROKER_TLS"), name + ".pem");
    }

    private static Certificate certificate(String name) throws Exception {
        try (InputStream in = Files.newInputStream(pem(name))) {
            return CertificateFactory.getInstance("X.509").generateCertificate(in);
        }
    }

    private static PrivateKey key(String name) throws Exception {
        String base64 = Files.readString(pem(name + "-key")).replaceAll("-----[A-Z ]+-----|\\s", "");
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(Base64.getDecoder().decode(base64)));
    }

    private Checks() {}
}
