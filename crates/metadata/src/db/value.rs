//! Parameters and rows: the three column types that both databases share.

use std::error::Error as StdError;

use bytes::{Bytes, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use twinport_oci::Digest;
use uuid::Uuid;

use crate::{Error, Incarnation, RepositoryUuid, Result};

/// A parameter, or one column of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Bytes),
    /// For the `{any $N}` fragment only.
    Blobs(Vec<Vec<u8>>),
}

/// One row of an answer, columns by index.
#[derive(Clone, Debug)]
pub(crate) struct Row(pub(crate) Vec<Value>);

impl Row {
    fn column(&self, index: usize) -> Result<&Value> {
        self.0.get(index).ok_or_else(|| Error::Bug(format!("a row has no column {index}")))
    }

    pub(crate) fn opt_int(&self, index: usize) -> Result<Option<i64>> {
        match self.column(index)? {
            Value::Null => Ok(None),
            Value::Int(value) => Ok(Some(*value)),
            other => Err(unexpected(index, "an integer", other)),
        }
    }

    pub(crate) fn int(&self, index: usize) -> Result<i64> {
        self.opt_int(index)?.ok_or_else(|| null(index))
    }

    /// An integer that counts bytes, and so is not negative.
    pub(crate) fn size(&self, index: usize) -> Result<u64> {
        u64::try_from(self.int(index)?).map_err(|_| Error::Corrupt(format!("column {index} is negative")))
    }

    pub(crate) fn opt_text(&self, index: usize) -> Result<Option<String>> {
        match self.column(index)? {
            Value::Null => Ok(None),
            Value::Text(value) => Ok(Some(value.clone())),
            other => Err(unexpected(index, "text", other)),
        }
    }

    pub(crate) fn text(&self, index: usize) -> Result<String> {
        self.opt_text(index)?.ok_or_else(|| null(index))
    }

    pub(crate) fn opt_blob(&self, index: usize) -> Result<Option<Bytes>> {
        match self.column(index)? {
            Value::Null => Ok(None),
            Value::Blob(value) => Ok(Some(value.clone())),
            other => Err(unexpected(index, "bytes", other)),
        }
    }

    pub(crate) fn blob(&self, index: usize) -> Result<Bytes> {
        self.opt_blob(index)?.ok_or_else(|| null(index))
    }

    pub(crate) fn opt_digest(&self, index: usize) -> Result<Option<Digest>> {
        self.opt_blob(index)?
            .map(|key| {
                Digest::from_key(&key).map_err(|error| Error::Corrupt(format!("column {index}: {error}")))
            })
            .transpose()
    }

    pub(crate) fn digest(&self, index: usize) -> Result<Digest> {
        self.opt_digest(index)?.ok_or_else(|| null(index))
    }

    pub(crate) fn uuid(&self, index: usize) -> Result<Uuid> {
        Uuid::from_slice(&self.blob(index)?)
            .map_err(|error| Error::Corrupt(format!("column {index}: {error}")))
    }

    /// A SHA-256 running hash.
    pub(crate) fn hash(&self, index: usize) -> Result<[u8; 32]> {
        let bytes = self.blob(index)?;
        <[u8; 32]>::try_from(bytes.as_ref())
            .map_err(|_| Error::Corrupt(format!("column {index} is no hash of 32 bytes")))
    }
}

fn null(index: usize) -> Error {
    Error::Corrupt(format!("column {index} is null"))
}

fn unexpected(index: usize, wanted: &str, got: &Value) -> Error {
    let kind = match got {
        Value::Null => "null",
        Value::Int(_) => "an integer",
        Value::Text(_) => "text",
        Value::Blob(_) | Value::Blobs(_) => "bytes",
    };
    Error::Corrupt(format!("column {index} holds {kind} where {wanted} was expected"))
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}
impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(i64::from(value))
    }
}
impl From<u64> for Value {
    /// Sizes and offsets; nothing stored reaches 2^63 bytes.
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}
impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(i64::from(value))
    }
}
impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}
impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::Text(value.clone())
    }
}
impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Self::Blob(Bytes::copy_from_slice(value))
    }
}
impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Blob(value.into())
    }
}
impl From<[u8; 32]> for Value {
    fn from(value: [u8; 32]) -> Self {
        Self::Blob(Bytes::copy_from_slice(&value))
    }
}
impl From<Bytes> for Value {
    fn from(value: Bytes) -> Self {
        Self::Blob(value)
    }
}
impl From<&Bytes> for Value {
    fn from(value: &Bytes) -> Self {
        Self::Blob(value.clone())
    }
}
impl From<&Digest> for Value {
    fn from(value: &Digest) -> Self {
        Self::Blob(value.to_key().into())
    }
}
impl From<Digest> for Value {
    fn from(value: Digest) -> Self {
        Self::from(&value)
    }
}
impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Blob(Bytes::copy_from_slice(value.as_bytes()))
    }
}
impl From<RepositoryUuid> for Value {
    fn from(value: RepositoryUuid) -> Self {
        value.0.into()
    }
}
impl From<Incarnation> for Value {
    fn from(value: Incarnation) -> Self {
        value.0.into()
    }
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl rusqlite::ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::{ToSqlOutput, Value as Owned, ValueRef};
        Ok(match self {
            Self::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Int(value) => ToSqlOutput::Borrowed(ValueRef::Integer(*value)),
            Self::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Self::Blob(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Self::Blobs(values) => {
                // Read back by json_each and unhex: see the `{any $N}` fragment.
                let quoted: Vec<String> =
                    values.iter().map(|value| format!("\"{}\"", hex::encode(value))).collect();
                ToSqlOutput::Owned(Owned::Text(format!("[{}]", quoted.join(","))))
            }
        })
    }
}

pub(super) fn from_sqlite(value: rusqlite::types::ValueRef<'_>) -> Result<Value> {
    use rusqlite::types::ValueRef;
    Ok(match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => Value::Int(value),
        ValueRef::Text(value) => Value::Text(
            String::from_utf8(value.to_vec())
                .map_err(|_| Error::Corrupt("text that is not UTF-8".to_owned()))?,
        ),
        ValueRef::Blob(value) => Value::Blob(Bytes::copy_from_slice(value)),
        ValueRef::Real(_) => return Err(Error::Bug("a query answered with a float".to_owned())),
    })
}

impl ToSql for Value {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn StdError + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(value) if *ty == Type::INT4 => i32::try_from(*value)?.to_sql(ty, out),
            Self::Int(value) if *ty == Type::BOOL => (*value != 0).to_sql(ty, out),
            Self::Int(value) => value.to_sql(ty, out),
            Self::Text(value) => value.to_sql(ty, out),
            Self::Blob(value) => value.as_ref().to_sql(ty, out),
            Self::Blobs(values) => values.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        matches!(
            *ty,
            Type::INT4
                | Type::INT8
                | Type::BOOL
                | Type::TEXT
                | Type::VARCHAR
                | Type::BYTEA
                | Type::BYTEA_ARRAY
        )
    }

    to_sql_checked!();
}

pub(super) fn from_postgres(row: &tokio_postgres::Row) -> Result<Row> {
    let mut values = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let value = match *column.type_() {
            Type::INT8 => row.try_get::<_, Option<i64>>(index)?.map_or(Value::Null, Value::Int),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(index)?
                .map_or(Value::Null, |value| Value::Int(i64::from(value))),
            Type::BOOL => row
                .try_get::<_, Option<bool>>(index)?
                .map_or(Value::Null, |value| Value::Int(i64::from(value))),
            Type::BYTEA => row
                .try_get::<_, Option<&[u8]>>(index)?
                .map_or(Value::Null, |value| Value::Blob(Bytes::copy_from_slice(value))),
            Type::VOID => Value::Null,
            _ => row.try_get::<_, Option<String>>(index)?.map_or(Value::Null, Value::Text),
        };
        values.push(value);
    }
    Ok(Row(values))
}
