"""Aggregated records by PyPI aws-kinesis-agg and aiokpl: base64, a record or user record a line.

agg.py split  standard input: records; standard output: their user records, by aws-kinesis-agg
agg.py write  standard output: records by aws-kinesis-agg, then by aiokpl, of `user_records`
"""

import base64
import sys

import aiokpl.aggregation
from aws_kinesis_agg.aggregator import RecordAggregator
from aws_kinesis_agg.deaggregator import deaggregate_records


def split():
    for line in sys.stdin:
        record = {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "sequenceNumber": "1",
                "approximateArrivalTimestamp": 0,
                "partitionKey": "outer",
                "data": line.strip(),
            }
        }
        for user_record in deaggregate_records(record):
            print(user_record["kinesis"]["data"].decode())


def user_records(writer):
    """Keys, explicit hash keys for some, empty data and data that is no text."""
    for number in range(300):
        data = f"{writer} {number} \x00\xff".encode("latin-1") * (number % 40)
        yield f"key-{number % 7}", data, str(number) if number % 3 == 0 else None


def write():
    aggregator = RecordAggregator()
    for key, data, hash_key in user_records("aws-kinesis-agg"):
        full = aggregator.add_user_record(key, data, hash_key)
        assert full is None
    _, _, data = aggregator.clear_and_get().get_contents()
    print(base64.b64encode(data).decode())
    records = [
        aiokpl.aggregation.UserRecord(key, data, hash_key, (aiokpl.aggregation.Tag("t", "v"),))
        for key, data, hash_key in user_records("aiokpl")
    ]
    print(base64.b64encode(aiokpl.aggregation.encode_aggregated(records)).decode())


{"split": split, "write": write}[sys.argv[1]]()
