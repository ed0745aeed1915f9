//! The table: the calls behind what a worker wants done.
//!
//! Invariant: a table that is used in another way than these leases are is read and never written.

use std::time::Duration;

use serde_json::{Value, json};

use super::kcl::{self, Unusable};
use super::lease::{Lease, Outcome, Write};
use crate::config::{Aws, Consume, LeaseTable};
use crate::stream::dynamodb::{DynamoDb, TableError};

/// How often a table that is being created is asked for. DynamoDB takes some seconds.
const CREATING_POLL: Duration = Duration::from_millis(500);

/// A call takes some milliseconds; one that takes long must leave time for the next within the failover
/// time.
const CALLS_WITHIN_FAILOVER: u32 = 5;

/// The longest that a call may take, however long the failover time is.
const TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// What keeps a worker from the leases.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Problem {
    /// The table is not there, and is not to be created.
    #[error("the table {0} does not exist: create it, or set coordinate.create_table")]
    NoTable(String),
    /// It cannot be shared.
    #[error(transparent)]
    Unusable(#[from] Unusable),
    /// It cannot be told whether it can be shared.
    #[error("it cannot be told whether a fleet of KCL 3 uses the table: {0}")]
    Unsure(String),
    /// A call failed.
    #[error("{0}")]
    Failed(String),
}

/// A table of leases.
#[derive(Debug)]
pub struct Table {
    tables: DynamoDb,
    name: String,
}

impl Table {
    /// Returns the table that a flow shares with others. Nothing is sent yet.
    #[must_use]
    pub fn of(aws: &Aws, flow: &Consume, table: &LeaseTable) -> Self {
        let timeout = (table.failover / CALLS_WITHIN_FAILOVER).min(TIMEOUT_MAX);
        let tables = DynamoDb::new(aws, &flow.stream, table.endpoint_url.clone(), timeout);
        Self { tables, name: table.name.clone() }
    }

    /// Sees that the table is there and can be shared; creates it where `create` says so.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn prepare(&self, create: bool) -> Result<(), Problem> {
        self.refuse_version_three().await?;
        let mut created = false;
        loop {
            let describe = self.tables.call("DescribeTable", json!({ "TableName": self.name }));
            match describe.await {
                Ok(answer) => match answer.pointer("/Table/TableStatus").and_then(Value::as_str) {
                    Some("CREATING") => {}
                    _ => return Ok(()),
                },
                Err(TableError::Missing) if !create => {
                    return Err(Problem::NoTable(self.name.clone()));
                }
                // It may take a moment until it is known everywhere.
                Err(TableError::Missing) if created => {}
                Err(TableError::Missing) => {
                    let made = self.tables.call("CreateTable", kcl::create_table(&self.name)).await;
                    match made {
                        Err(error) if !error.to_string().contains("ResourceInUse") => {
                            return Err(Problem::Failed(error.to_string()));
                        }
                        // Another agent was faster, or it is made.
                        _ => created = true,
                    }
                }
                Err(error) => return Err(Problem::Failed(error.to_string())),
            }
            tokio::time::sleep(CREATING_POLL).await;
        }
    }

    /// Sees whether the table can be shared, or created where `create` says so and it is not there.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn look(&self, create: bool) -> Result<(), Problem> {
        self.refuse_version_three().await?;
        match self.tables.call("DescribeTable", json!({ "TableName": self.name })).await {
            Ok(_) => Ok(()),
            Err(TableError::Missing) if create => Ok(()),
            Err(TableError::Missing) => Err(Problem::NoTable(self.name.clone())),
            Err(error) => Err(Problem::Failed(error.to_string())),
        }
    }

    /// Returns all leases.
    ///
    /// # Errors
    /// [`Problem`].
    pub async fn scan(&self) -> Result<Vec<Lease>, Problem> {
        self.refuse_version_three().await?;
        let mut leases = Vec::new();
        let mut scan = json!({ "TableName": self.name, "ConsistentRead": true });
        loop {
            let mut answer = match self.tables.call("Scan", scan.clone()).await {
                Ok(answer) => answer,
                Err(TableError::Missing) => return Err(Problem::NoTable(self.name.clone())),
                Err(error) => return Err(Problem::Failed(error.to_string())),
            };
            for item in answer.get("Items").and_then(Value::as_array).into_iter().flatten() {
                leases.extend(kcl::lease(item)?);
            }
            match answer.get_mut("LastEvaluatedKey").map(Value::take).zip(scan.as_object_mut()) {
                Some((last, scan)) => scan.insert("ExclusiveStartKey".to_owned(), last),
                None => return Ok(leases),
            };
        }
    }

    /// Makes a write for a worker.
    pub async fn write(&self, worker: &str, write: &Write) -> Outcome {
        let (operation, request) = kcl::request(&self.name, worker, write);
        match self.tables.call(operation, request).await {
            Ok(answer) => match (write, answer.get("Attributes")) {
                (Write::Create(lease), _) => Outcome::Done(Some(lease.clone())),
                (Write::Remove { .. }, _) => Outcome::Done(None),
                (_, Some(item)) => match kcl::lease(item) {
                    Ok(Some(lease)) => Outcome::Done(Some(lease)),
                    Ok(None) => Outcome::Unknown("an answer without a lease".to_owned()),
                    Err(error) => Outcome::Unknown(error.to_string()),
                },
                (_, None) => Outcome::Unknown("an answer without a lease".to_owned()),
            },
            Err(TableError::Condition(_)) => self.refused(write).await,
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }

    /// What stands there instead is asked for: not every endpoint sends it with the refusal.
    async fn refused(&self, write: &Write) -> Outcome {
        let get = json!({
            "TableName": self.name,
            "Key": { kcl::KEY: { "S": &*write.shard().0 } },
            "ConsistentRead": true,
        });
        match self.tables.call("GetItem", get).await {
            Ok(answer) => match answer.get("Item").map(kcl::lease) {
                None => Outcome::Refused(None),
                Some(Ok(lease)) => Outcome::Refused(lease),
                Some(Err(error)) => Outcome::Unknown(error.to_string()),
            },
            Err(error) => Outcome::Unknown(error.to_string()),
        }
    }

    async fn refuse_version_three(&self) -> Result<(), Problem> {
        let get = json!({
            "TableName": format!("{}{}", self.name, kcl::STATE_SUFFIX),
            "Key": { "key": { "S": kcl::MIGRATION_KEY } },
        });
        match self.tables.call("GetItem", get).await {
            Ok(answer) if answer.get("Item").is_some_and(kcl::is_version_three) => {
                Err(Unusable::VersionThree.into())
            }
            Ok(_) | Err(TableError::Missing) => Ok(()),
            Err(error) => Err(Problem::Unsure(error.to_string())),
        }
    }
}
