"""Prints the data of every record of a stream of one shard, in order: what the agent sent."""

import base64
import json
import sys
import urllib.request

url, stream = sys.argv[1:]


def call(operation, **arguments):
    request = urllib.request.Request(
        url,
        json.dumps(arguments).encode(),
        {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": f"Kinesis_20131202.{operation}",
            "X-Amz-Date": "20260101T000000Z",
            "Authorization": "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/kinesis/aws4_request, "
            "SignedHeaders=host, Signature=0",
        },
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


(shard,) = call("ListShards", StreamName=stream)["Shards"]
place = call(
    "GetShardIterator",
    StreamName=stream,
    ShardId=shard["ShardId"],
    ShardIteratorType="TRIM_HORIZON",
)["ShardIterator"]
while True:
    page = call("GetRecords", ShardIterator=place)
    for record in page["Records"]:
        sys.stdout.buffer.write(base64.b64decode(record["Data"]))
    if not page["Records"] and page["MillisBehindLatest"] == 0:
        break
    place = page["NextShardIterator"]
