// Aggregated records by npm aws-kinesis-agg, and by protobufjs from the schema: base64, a record or
// user record a line.
//
// agg.js split   standard input: records; standard output: their user records, by aws-kinesis-agg
// agg.js schema  the same, by the schema and a protobuf decoder
// agg.js write   standard output: a record by aws-kinesis-agg
"use strict";

const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const aggregation = require("aws-kinesis-agg");
const protobuf = require("protobufjs");

function records() {
  return fs.readFileSync(0, "utf8").split("\n").filter((line) => line !== "");
}

function split() {
  for (const data of records()) {
    const record = { data, sequenceNumber: "1", partitionKey: "outer" };
    aggregation.deaggregateSync(record, true, (error, userRecords) => {
      if (error) throw error;
      for (const userRecord of userRecords) console.log(userRecord.data);
    });
  }
}

function schema() {
  const file = path.join(__dirname, "aggregated_record.proto");
  const { root } = protobuf.parse(fs.readFileSync(file, "utf8"), { keepCase: true });
  const AggregatedRecord = root.lookupType("AggregatedRecord");
  for (const data of records()) {
    const bytes = Buffer.from(data, "base64");
    if (!bytes.subarray(0, 4).equals(Buffer.from("f3899ac2", "hex"))) throw new Error("no magic");
    const message = bytes.subarray(4, -16);
    const digest = crypto.createHash("md5").update(message).digest();
    if (!digest.equals(bytes.subarray(-16))) throw new Error("another digest");
    const read = AggregatedRecord.decode(message);
    if (read.partition_key_table.length !== 1) throw new Error("more than one partition key");
    if (read.explicit_hash_key_table.length !== 0) throw new Error("explicit hash keys");
    for (const record of read.records) {
      if (Number(record.partition_key_index) !== 0) throw new Error("a key that is not there");
      console.log(Buffer.from(record.data).toString("base64"));
    }
  }
}

function write() {
  const aggregator = new aggregation.RecordAggregator();
  for (let number = 0; number < 300; number++) {
    const record = { partitionKey: `key-${number % 7}`, data: Buffer.from(`npm ${number} \u0000é`) };
    if (number % 3 === 0) record.explicitHashKey = String(number);
    aggregator.addUserRecord(record);
  }
  console.log(Buffer.from(aggregator.build().data).toString("base64"));
}

({ split, schema, write })[process.argv[2]]();
