//! The public HTTP API: what is stored as JSON, and what may be done to it. Nothing here knows SQL, a carrier's words or how a call
//! is driven; rows are converted to JSON of the API's own, so that neither binds the other.

pub mod agents;
pub mod calls;
pub mod connections;
pub mod conversations;
pub mod document;
pub mod keys;
pub mod live;
pub mod phone_numbers;
pub mod request;
pub mod sip_trunks;
pub mod telephony;
pub mod workspace;

use jiff::Timestamp;
use offhook_store::Listed;
use serde::Serialize;
use utoipa::ToSchema;

/// A part of a list, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// What to send as `after` for the next part; null when there is none.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// The rows of the store as the API shows them.
    pub fn of<R>(listed: Listed<R>) -> Self
    where
        T: From<R>,
    {
        Page { items: listed.rows.into_iter().map(T::from).collect(), next: listed.next }
    }
}

/// A moment, as RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(value_type = String, format = DateTime, example = "2027-01-15T08:00:00Z")]
pub struct Time(Timestamp);

impl Time {
    /// The moment so many µs after 1970.
    pub fn from_us(us: i64) -> Self {
        Time(Timestamp::from_microsecond(us).unwrap_or(if us < 0 { Timestamp::MIN } else { Timestamp::MAX }))
    }
}

/// Schemas of closed sets of words, from the sets themselves.
pub mod words {
    use offhook_core::entity;
    use utoipa::openapi::schema::{ArrayBuilder, Object, ObjectBuilder, Type};

    macro_rules! schemas {
        ($($name:ident: $set:ident),* $(,)?) => {$(
            #[doc = concat!("The words of [`entity::", stringify!($set), "`].")]
            pub fn $name() -> Object {
                let words = entity::$set::ALL.iter().map(|word| word.as_str());
                ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).build()
            }
        )*};
    }

    schemas! {
        role: Role,
        connection_status: ConnectionStatus,
        number_status: NumberStatus,
        number_source: NumberSource,
        operation_kind: OperationKind,
        operation_status: OperationStatus,
        capability: Capability,
        channel: Channel,
        direction: Direction,
        call_status: CallStatus,
        message_role: MessageRole,
        usage_kind: UsageKind,
    }

    /// A list of [`entity::Capability`].
    pub fn capabilities() -> utoipa::openapi::schema::Array {
        ArrayBuilder::new().items(capability()).build()
    }
}
