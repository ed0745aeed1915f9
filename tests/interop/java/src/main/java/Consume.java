import java.io.PrintStream;
import java.net.URI;
import java.util.Base64;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.http.Protocol;
import software.amazon.awssdk.http.nio.netty.NettyNioAsyncHttpClient;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.cloudwatch.CloudWatchAsyncClient;
import software.amazon.awssdk.services.dynamodb.DynamoDbAsyncClient;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.kinesis.common.ConfigsBuilder;
import software.amazon.kinesis.common.InitialPositionInStream;
import software.amazon.kinesis.common.InitialPositionInStreamExtended;
import software.amazon.kinesis.coordinator.Scheduler;
import software.amazon.kinesis.exceptions.InvalidStateException;
import software.amazon.kinesis.exceptions.ShutdownException;
import software.amazon.kinesis.lifecycle.events.InitializationInput;
import software.amazon.kinesis.lifecycle.events.LeaseLostInput;
import software.amazon.kinesis.lifecycle.events.ProcessRecordsInput;
import software.amazon.kinesis.lifecycle.events.ShardEndedInput;
import software.amazon.kinesis.lifecycle.events.ShutdownRequestedInput;
import software.amazon.kinesis.metrics.NullMetricsFactory;
import software.amazon.kinesis.processor.ShardRecordProcessor;
import software.amazon.kinesis.processor.SingleStreamTracker;
import software.amazon.kinesis.retrieval.KinesisClientRecord;
import software.amazon.kinesis.retrieval.polling.PollingConfig;

/**
 * A KCL application that writes every user record it is handed as a line to standard output:
 * SHARD SEQUENCE-NUMBER SUB-SEQUENCE-NUMBER AGGREGATED KEY DATA, key and data in base64.
 * Ends once it has COUNT of them and nothing more came for two seconds; 1 where they did not come in time.
 *
 * Consume KINESIS-URL DYNAMODB-URL STREAM COUNT SECONDS
 */
public final class Consume {
    private static final AtomicLong handed = new AtomicLong();
    private static final CountDownLatch all = new CountDownLatch(1);

    private record Processor(PrintStream out, long count, String[] shard) implements ShardRecordProcessor {
        @Override
        public void initialize(InitializationInput input) {
            shard[0] = input.shardId();
        }

        @Override
        public void processRecords(ProcessRecordsInput input) {
            for (KinesisClientRecord record : input.records()) {
                byte[] data = new byte[record.data().remaining()];
                record.data().get(data);
                Base64.Encoder base64 = Base64.getEncoder();
                String line = String.join(" ", List.of(
                        shard[0],
                        record.sequenceNumber(),
                        Long.toString(record.subSequenceNumber()),
                        Boolean.toString(record.aggregated()),
                        base64.encodeToString(record.partitionKey().getBytes()),
                        base64.encodeToString(data)));
                synchronized (out) {
                    out.println(line);
                }
                if (handed.incrementAndGet() == count) {
                    all.countDown();
                }
            }
        }

        @Override
        public void leaseLost(LeaseLostInput input) {}

        @Override
        public void shardEnded(ShardEndedInput input) {
            try {
                input.checkpointer().checkpoint();
            } catch (InvalidStateException | ShutdownException error) {
                throw new IllegalStateException(error);
            }
        }

        @Override
        public void shutdownRequested(ShutdownRequestedInput input) {}
    }

    public static void main(String[] arguments) throws Exception {
        URI kinesisUrl = URI.create(arguments[0]);
        URI dynamoUrl = URI.create(arguments[1]);
        String stream = arguments[2];
        long count = Long.parseLong(arguments[3]);
        long seconds = Long.parseLong(arguments[4]);
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        Region region = Region.US_EAST_1;
        KinesisAsyncClient kinesis = KinesisAsyncClient.builder()
                .endpointOverride(kinesisUrl).region(region).credentialsProvider(credentials)
                .httpClientBuilder(NettyNioAsyncHttpClient.builder().protocol(Protocol.HTTP1_1))
                .build();
        DynamoDbAsyncClient dynamo = DynamoDbAsyncClient.builder()
                .endpointOverride(dynamoUrl).region(region).credentialsProvider(credentials).build();
        CloudWatchAsyncClient cloudWatch = CloudWatchAsyncClient.builder()
                .endpointOverride(dynamoUrl).region(region).credentialsProvider(credentials).build();

        PrintStream out = System.out;
        var start = InitialPositionInStreamExtended.newInitialPosition(InitialPositionInStream.TRIM_HORIZON);
        var configs = new ConfigsBuilder(
                new SingleStreamTracker(stream, start), "kinetail-" + UUID.randomUUID(),
                kinesis, dynamo, cloudWatch, "worker", () -> new Processor(out, count, new String[1]));
        var polling = new PollingConfig(stream, kinesis).idleTimeBetweenReadsInMillis(250);
        var scheduler = new Scheduler(
                configs.checkpointConfig(),
                configs.coordinatorConfig().parentShardPollIntervalMillis(500),
                configs.leaseManagementConfig().failoverTimeMillis(2_000).shardSyncIntervalMillis(1_000),
                configs.lifecycleConfig(),
                configs.metricsConfig().metricsFactory(new NullMetricsFactory()),
                configs.processorConfig(),
                configs.retrievalConfig().retrievalSpecificConfig(polling));
        Thread worker = new Thread(scheduler, "scheduler");
        worker.setDaemon(true);
        worker.start();
        boolean came = all.await(seconds, TimeUnit.SECONDS);
        // Whatever came twice would come now.
        Thread.sleep(2_000);
        synchronized (out) {
            out.flush();
            System.err.println("handed " + handed.get() + " user records of " + count);
            Runtime.getRuntime().halt(came ? 0 : 1);
        }
    }
}
