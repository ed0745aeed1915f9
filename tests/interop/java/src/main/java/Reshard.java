import java.math.BigInteger;
import java.net.URI;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

import software.amazon.awssdk.auth.credentials.AwsBasicCredentials;
import software.amazon.awssdk.auth.credentials.StaticCredentialsProvider;
import software.amazon.awssdk.regions.Region;
import software.amazon.awssdk.services.kinesis.KinesisAsyncClient;
import software.amazon.awssdk.services.kinesis.model.Shard;
import software.amazon.awssdk.services.kinesis.model.StreamStatus;

/**
 * Splits every open shard of a stream in the middle, or merges each two that are beside each other.
 *
 * Reshard KINESIS-URL STREAM split|merge
 */
public final class Reshard {
    private static KinesisAsyncClient kinesis;
    private static String stream;

    public static void main(String[] arguments) throws Exception {
        stream = arguments[1];
        var credentials = StaticCredentialsProvider.create(AwsBasicCredentials.create("test", "test"));
        kinesis = KinesisAsyncClient.builder()
                .endpointOverride(URI.create(arguments[0])).region(Region.US_EAST_1)
                .credentialsProvider(credentials).build();
        List<Shard> shards = kinesis.listShards(list -> list.streamName(stream)).get().shards();
        // By its end a closed shard of kinesis-local cannot be told from an open one of Kinesis.
        Set<String> closed = new HashSet<>();
        for (Shard shard : shards) {
            closed.add(shard.parentShardId());
            closed.add(shard.adjacentParentShardId());
        }
        List<Shard> open = shards.stream()
                .filter(shard -> !closed.contains(shard.shardId()))
                .sorted(Comparator.comparing(Reshard::start))
                .toList();
        boolean split = arguments[2].equals("split");
        for (int at = 0; at < open.size(); at += split ? 1 : 2) {
            Shard shard = open.get(at);
            if (split) {
                BigInteger middle = start(shard).add(end(shard)).add(BigInteger.TWO).shiftRight(1);
                kinesis.splitShard(request -> request.streamName(stream)
                        .shardToSplit(shard.shardId()).newStartingHashKey(middle.toString())).get();
            } else {
                String adjacent = open.get(at + 1).shardId();
                kinesis.mergeShards(request -> request.streamName(stream)
                        .shardToMerge(shard.shardId()).adjacentShardToMerge(adjacent)).get();
            }
            awaitActive();
        }
        System.exit(0);
    }

    private static BigInteger start(Shard shard) {
        return new BigInteger(shard.hashKeyRange().startingHashKey());
    }

    private static BigInteger end(Shard shard) {
        return new BigInteger(shard.hashKeyRange().endingHashKey());
    }

    private static void awaitActive() throws Exception {
        for (int look = 0; look < 600; look++) {
            var summary = kinesis.describeStreamSummary(describe -> describe.streamName(stream)).get();
            if (summary.streamDescriptionSummary().streamStatus() == StreamStatus.ACTIVE) {
                return;
            }
            Thread.sleep(100);
        }
        throw new IllegalStateException("the stream does not become active");
    }
}
