//! A table store that speaks DynamoDB's JSON protocol on a real socket: the eight operations that leases
//! need, with conditions and updates as the real one has them, and answers that get lost on purpose.
//!
//! Invariant: whatever a request holds that is not understood here is refused as a `ValidationException`, so
//! that a test cannot pass by what was overlooked; and a write is made whole or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Map, Value, json};

use super::endpoint::http::{Answer, Connection};

/// The items of a page of a scan: few, so that there are several pages.
const PAGE: usize = 5;

type Item = Map<String, Value>;

/// A running store. It answers for as long as the tests run.
#[derive(Debug)]
pub struct DynamoDb {
    address: SocketAddr,
    shared: Arc<Mutex<Store>>,
}

#[derive(Debug, Default)]
struct Store {
    tables: BTreeMap<String, Table>,
    /// Every so many requests one is carried out and not answered; 0: never.
    lose_every: u64,
    requests: u64,
    refused: u64,
}

#[derive(Debug)]
struct Table {
    key: String,
    items: BTreeMap<String, Item>,
}

impl DynamoDb {
    /// Starts an empty store.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Store::default()));
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let shared = Arc::clone(&theirs);
                // An error is a client that went away.
                thread::spawn(move || converse(&shared, socket).ok());
            }
        });
        Self { address, shared }
    }

    /// Returns the URL to configure.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on carries out every so-manieth request and answers it by closing the connection; 0: none.
    pub fn lose_every(&self, requests: u64) {
        self.shared.lock().unwrap().lose_every = requests;
    }

    /// Returns all items of a table, by key; none where it is not there.
    #[must_use]
    pub fn items(&self, table: &str) -> BTreeMap<String, Value> {
        let store = self.shared.lock().unwrap();
        let items = store.tables.get(table).map(|table| table.items.clone()).unwrap_or_default();
        items.into_iter().map(|(key, item)| (key, Value::Object(item))).collect()
    }

    /// Makes a table with one item, whatever stood there.
    pub fn put(&self, table: &str, key: &str, item: &Value) {
        let mut store = self.shared.lock().unwrap();
        let made = Table { key: key.to_owned(), items: BTreeMap::new() };
        let table = store.tables.entry(table.to_owned()).or_insert(made);
        let name = item[key]["S"].as_str().unwrap().to_owned();
        table.items.insert(name, item.as_object().unwrap().clone());
    }

    /// Returns how many requests were not understood.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.lock().unwrap().refused
    }
}

/// Answers the requests of one connection until it ends.
fn converse(shared: &Mutex<Store>, socket: TcpStream) -> io::Result<()> {
    let mut connection = Connection::new(socket)?;
    while let Some(head) = connection.read_head()? {
        let body = connection.read_body(head.content_length.unwrap_or(0), None)?;
        let mut store = shared.lock().unwrap();
        store.requests += 1;
        let number = store.requests;
        let signed = head.authorization.is_some_and(|it| it.contains("/dynamodb/aws4_request"));
        let answer = match head.target.strip_prefix("DynamoDB_20120810.") {
            Some(operation) if signed => store.carry_out(operation, &body),
            _ => Err(invalid("neither signed nor an operation")),
        };
        let lost = store.lose_every > 0 && number.is_multiple_of(store.lose_every);
        let is_refusal = |answer: &Answer| answer.error == Some("ValidationException");
        store.refused += u64::from(answer.as_ref().is_err_and(is_refusal));
        drop(store);
        if lost {
            connection.cut();
            return Ok(());
        }
        let answer = answer.map(|answer| Answer::ok(answer.to_string().into_bytes()));
        connection.answer(number, &answer.unwrap_or_else(|refusal| refusal))?;
    }
    Ok(())
}

fn invalid(message: &str) -> Answer {
    Answer::error(400, "ValidationException", message)
}

fn missing() -> Answer {
    Answer::error(400, "ResourceNotFoundException", "Requested resource not found")
}

/// Returns the members of a request, all of which are known.
fn members(request: &Value, known: &[&str]) -> Result<Item, Answer> {
    let members = request.as_object().ok_or_else(|| invalid("no object"))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(strange) => Err(invalid(&format!("{strange} is not understood"))),
        None => Ok(members.clone()),
    }
}

/// What the operations on one item may hold.
const ONE_ITEM: [&str; 9] = [
    "ConditionExpression",
    "ConsistentRead",
    "ExpressionAttributeNames",
    "ExpressionAttributeValues",
    "Item",
    "Key",
    "ReturnValues",
    "TableName",
    "UpdateExpression",
];

impl Store {
    fn carry_out(&mut self, operation: &str, body: &[u8]) -> Result<Value, Answer> {
        let request: Value =
            serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))?;
        let name = request["TableName"].as_str().ok_or_else(|| invalid("no TableName"))?;
        match operation {
            "CreateTable" => self.create(name, &request),
            "DescribeTable" => {
                members(&request, &["TableName"])?;
                self.table(name)?;
                Ok(json!({ "Table": { "TableName": name, "TableStatus": "ACTIVE" } }))
            }
            "Scan" => self.table(name)?.scan(&request),
            "GetItem" | "PutItem" | "UpdateItem" | "DeleteItem" => {
                members(&request, &ONE_ITEM)?;
                self.table(name)?.one(operation, &request)
            }
            _ => Err(invalid("no such operation")),
        }
    }

    fn table(&mut self, name: &str) -> Result<&mut Table, Answer> {
        self.tables.get_mut(name).ok_or_else(missing)
    }

    fn create(&mut self, name: &str, request: &Value) -> Result<Value, Answer> {
        members(request, &["AttributeDefinitions", "BillingMode", "KeySchema", "TableName"])?;
        let (schema, types) = (&request["KeySchema"], &request["AttributeDefinitions"]);
        let key = schema[0]["AttributeName"].as_str().ok_or_else(|| invalid("no key"))?;
        let is_plain = *schema == json!([{ "AttributeName": key, "KeyType": "HASH" }])
            && *types == json!([{ "AttributeName": key, "AttributeType": "S" }])
            && request["BillingMode"] == "PAY_PER_REQUEST";
        if !is_plain {
            return Err(invalid("a table of another kind"));
        }
        if self.tables.contains_key(name) {
            return Err(Answer::error(400, "ResourceInUseException", "Table already exists"));
        }
        let table = Table { key: key.to_owned(), items: BTreeMap::new() };
        self.tables.insert(name.to_owned(), table);
        Ok(json!({ "TableDescription": { "TableName": name, "TableStatus": "CREATING" } }))
    }
}

impl Table {
    fn scan(&self, request: &Value) -> Result<Value, Answer> {
        members(request, &["ConsistentRead", "ExclusiveStartKey", "TableName"])?;
        let after = request.get("ExclusiveStartKey").map(|key| self.key_of(key)).transpose()?;
        let rest = self.items.iter().filter(|(key, _)| after.as_ref().is_none_or(|at| *key > at));
        let rest: Vec<_> = rest.collect();
        let page: Vec<&Item> = rest.iter().take(PAGE).map(|(_, item)| *item).collect();
        let mut answer = json!({ "Items": page, "Count": page.len() });
        if let (true, Some(last)) = (rest.len() > PAGE, page.last()) {
            answer["LastEvaluatedKey"] = json!({ &self.key: last[&self.key] });
        }
        Ok(answer)
    }

    fn key_of(&self, item: &Value) -> Result<String, Answer> {
        let key = item.pointer(&format!("/{}/S", self.key)).and_then(Value::as_str);
        key.map(str::to_owned).ok_or_else(|| invalid("no key"))
    }

    fn one(&mut self, operation: &str, request: &Value) -> Result<Value, Answer> {
        let place = if operation == "PutItem" { &request["Item"] } else { &request["Key"] };
        let key = self.key_of(place)?;
        let before = self.items.get(&key);
        let mut words = Words::of(request);
        let holds = match request["ConditionExpression"].as_str() {
            Some(condition) => words.holds(condition, before)?,
            None => true,
        };
        let mut answer = json!({});
        let after = match operation {
            "GetItem" => {
                if let Some(item) = before {
                    answer["Item"] = json!(item);
                }
                before.cloned()
            }
            "PutItem" => place.as_object().cloned(),
            "DeleteItem" => None,
            _ => {
                let mut item = before.cloned().unwrap_or_default();
                item.insert(self.key.clone(), json!({ "S": key }));
                let update = request["UpdateExpression"].as_str();
                words.update(update.ok_or_else(|| invalid("no update"))?, &mut item)?;
                if request["ReturnValues"] == "ALL_NEW" {
                    answer["Attributes"] = json!(item);
                }
                Some(item)
            }
        };
        words.all_are_used()?;
        if !holds {
            let message = "The conditional request failed";
            return Err(Answer::error(400, "ConditionalCheckFailedException", message));
        }
        match after {
            Some(item) => self.items.insert(key, item),
            None => self.items.remove(&key),
        };
        Ok(answer)
    }
}

/// What the placeholders of a request's expressions stand for.
struct Words<'a> {
    names: Option<&'a Map<String, Value>>,
    values: Option<&'a Map<String, Value>>,
    used: BTreeSet<String>,
}

impl<'a> Words<'a> {
    fn of(request: &'a Value) -> Self {
        let map = |name: &str| request.get(name).and_then(Value::as_object);
        Self {
            names: map("ExpressionAttributeNames"),
            values: map("ExpressionAttributeValues"),
            used: BTreeSet::new(),
        }
    }

    fn name(&mut self, word: &str) -> Result<&'a str, Answer> {
        self.used.insert(word.to_owned());
        let name = self.names.and_then(|names| names.get(word)).and_then(Value::as_str);
        name.ok_or_else(|| invalid(&format!("{word} stands for no name")))
    }

    fn value(&mut self, word: &str) -> Result<&'a Value, Answer> {
        self.used.insert(word.to_owned());
        let value = self.values.and_then(|values| values.get(word));
        value.ok_or_else(|| invalid(&format!("{word} stands for no value")))
    }

    /// As the service does, a placeholder that nothing uses is a mistake.
    fn all_are_used(&self) -> Result<(), Answer> {
        let given = self.names.into_iter().chain(self.values).flat_map(|words| words.keys());
        match given.into_iter().find(|word| !self.used.contains(*word)) {
            Some(word) => Err(invalid(&format!("{word} is unused"))),
            None => Ok(()),
        }
    }

    /// `#name = :value` and `attribute_not_exists(#name)`, joined by `AND`.
    fn holds(&mut self, condition: &str, item: Option<&Item>) -> Result<bool, Answer> {
        let mut holds = true;
        for part in condition.split(" AND ") {
            let inner = part.strip_prefix("attribute_not_exists(");
            holds &= match (inner.and_then(|rest| rest.strip_suffix(')')), part.split_once(" = ")) {
                (Some(name), _) => {
                    let name = self.name(name)?;
                    item.is_none_or(|item| !item.contains_key(name))
                }
                (None, Some((name, value))) => {
                    let (name, value) = (self.name(name)?, self.value(value)?);
                    item.and_then(|item| item.get(name)) == Some(value)
                }
                (None, None) => return Err(invalid("a condition of another kind")),
            };
        }
        Ok(holds)
    }

    /// `SET #name = :value, …`, `REMOVE #name, …` and `ADD #name :number, …`, each once at most.
    fn update(&mut self, expression: &str, item: &mut Item) -> Result<(), Answer> {
        let mut clause = "";
        let tokens: Vec<&str> = expression.split_ascii_whitespace().collect();
        let mut at = tokens.iter().map(|token| token.trim_end_matches(',')).peekable();
        while let Some(token) = at.next() {
            if let "SET" | "REMOVE" | "ADD" = token {
                clause = token;
                continue;
            }
            let name = self.name(token)?.to_owned();
            match clause {
                "REMOVE" => {
                    item.remove(&name);
                    continue;
                }
                "SET" if at.next() == Some("=") => {}
                "ADD" => {}
                _ => return Err(invalid("an update of another kind")),
            }
            let value = self.value(at.next().unwrap_or_default())?;
            let sum = if clause == "ADD" { added(item.get(&name), value)? } else { value.clone() };
            item.insert(name, sum);
        }
        Ok(())
    }
}

fn added(before: Option<&Value>, more: &Value) -> Result<Value, Answer> {
    let number = |value: &Value| value["N"].as_str().and_then(|digits| digits.parse::<u64>().ok());
    let before = before.map_or(Some(0), number);
    let sum = before.zip(number(more)).map(|(one, other)| one + other);
    let sum = sum.ok_or_else(|| invalid("no number is added to"))?;
    Ok(json!({ "N": sum.to_string() }))
}
