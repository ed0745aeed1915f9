import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.TimeUnit;

import com.google.common.util.concurrent.ListenableFuture;
import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.kinesis.producer.KinesisProducer;
import software.amazon.kinesis.producer.KinesisProducerConfiguration;
import software.amazon.kinesis.producer.UserRecordResult;

/**
 * Puts user records by the KPL, with its native daemon and as it aggregates by default, over TLS.
 * User record N is the text "kpl N" under the key "key-(N mod 7)"; every third has an explicit hash key.
 *
 * Produce PORT STREAM COUNT
 */
public final class Produce {
    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String stream = arguments[1];
        int count = Integer.parseInt(arguments[2]);
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        var configuration = new KinesisProducerConfiguration()
                .setKinesisEndpoint("localhost").setKinesisPort(port)
                .setStsEndpoint("localhost").setStsPort(port)
                .setCloudwatchEndpoint("localhost").setCloudwatchPort(port)
                .setVerifyCertificate(false)
                .setMetricsLevel("none")
                .setRegion("us-east-1")
                .setCredentialsProvider(credentials)
                .setRecordTtl(120_000)
                .setRequestTimeout(60_000)
                .setRecordMaxBufferedTime(500)
                .setLogLevel("warning");
        var producer = new KinesisProducer(configuration);
        List<ListenableFuture<UserRecordResult>> results = new ArrayList<>();
        // The second half comes when it knows the shards, which it needs to aggregate.
        for (int number = 0; number < count; number++) {
            byte[] data = String.format(Locale.ROOT, "kpl %06d", number).getBytes(StandardCharsets.UTF_8);
            String hashKey = number % 3 == 0 ? Integer.toString(number) : null;
            results.add(producer.addUserRecord(stream, "key-" + number % 7, hashKey, ByteBuffer.wrap(data)));
            if (number == count / 2) {
                results.get(0).get(120, TimeUnit.SECONDS);
            }
        }
        for (var result : results) {
            if (!result.get(120, TimeUnit.SECONDS).isSuccessful()) {
                throw new IllegalStateException("a user record was refused");
            }
        }
        System.err.println("put " + results.size() + " user records");
        producer.destroy();
        Runtime.getRuntime().halt(0);
    }
}
