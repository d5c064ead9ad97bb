//! JSON objects whose members are kept as the text they arrived in.
//!
//! A gateway decides on a few members and forwards the rest, so values are never decoded and
//! re-encoded: numbers keep their digits, strings their escapes, objects their order.
//!
//! Parsing refuses what two parsers could read differently (duplicate names) and what costs
//! more than it carries (depth, member count). `Debug` prints member names only, so an object
//! can be logged without its values.

mod canonical;
mod text;

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use indexmap::map::Entry;
use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

pub use self::canonical::canonical;
pub use self::text::{DEPTH_MAX, ELEMENTS_MAX, JsonError, as_str, elements, raw};
pub(crate) use self::text::{check_depth, first_byte};

/// Most members one object may have.
pub const MEMBERS_MAX: usize = 1024;
/// A JSON object in arrival order, each value as the text it arrived in.
#[derive(Clone, Default)]
pub struct Object {
    members: IndexMap<String, Box<RawValue>>,
}

impl Object {
    /// An object without members.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses one JSON text that is an object and nothing else.
    pub fn parse(text: &[u8]) -> Result<Self, JsonError> {
        check_depth(text)?;
        if first_byte(text) != Some(b'{') {
            return Err(
                match serde_json::from_slice::<serde::de::IgnoredAny>(text) {
                    Ok(_) => JsonError::NotAnObject,
                    Err(_) => JsonError::Syntax,
                },
            );
        }
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let mut refusal = None;
        let seed = Members {
            refusal: &mut refusal,
        };
        let parsed = seed
            .deserialize(&mut deserializer)
            .and_then(|object| deserializer.end().map(|()| object));
        parsed.map_err(|_| refusal.unwrap_or(JsonError::Syntax))
    }

    /// Parses a value already known to be JSON.
    pub fn from_raw(value: &RawValue) -> Result<Self, JsonError> {
        Self::parse(value.get().as_bytes())
    }

    /// The value of a member, as text.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&RawValue> {
        self.members.get(name).map(AsRef::as_ref)
    }

    /// The value of a member if it is a JSON string.
    #[must_use]
    pub fn get_str(&self, name: &str) -> Option<Cow<'_, str>> {
        as_str(self.get(name)?)
    }

    /// The value of a member parsed as an object.
    #[must_use]
    pub fn get_object(&self, name: &str) -> Option<Result<Self, JsonError>> {
        self.get(name).map(Self::from_raw)
    }

    /// The value of a member parsed as `T`.
    #[must_use]
    pub fn get_as<T: DeserializeOwned>(&self, name: &str) -> Option<Result<T, serde_json::Error>> {
        self.get(name)
            .map(|value| serde_json::from_str(value.get()))
    }

    /// Whether a member of this name exists, whatever its value.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Sets a member; an existing one keeps its position.
    pub fn insert_raw(&mut self, name: &str, value: Box<RawValue>) {
        self.members.insert(name.to_owned(), value);
    }

    /// Sets a member to the JSON form of `value`; an existing one keeps its position.
    pub fn insert<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.insert_raw(name, raw(value));
    }

    /// [`Object::insert`], for building an object in one expression.
    #[must_use]
    pub fn with<T: Serialize + ?Sized>(mut self, name: &str, value: &T) -> Self {
        self.insert(name, value);
        self
    }

    /// Gives a member another name in the same position. Any other member already bearing the
    /// new name is dropped. Returns whether there was a member to rename.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if from == to {
            return self.contains(from);
        }
        if !self.contains(from) {
            return false;
        }
        self.members.shift_remove(to);
        let Some((index, _, value)) = self.members.shift_remove_full(from) else {
            return false;
        };
        self.members.shift_insert(index, to.to_owned(), value);
        true
    }

    /// Removes a member, keeping the order of the others.
    pub fn remove(&mut self, name: &str) -> Option<Box<RawValue>> {
        self.members.shift_remove(name)
    }

    /// Members in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.members
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_ref()))
    }

    /// Member names in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Bytes of the members' names and values together: about what the object takes.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let lengths = self
            .iter()
            .map(|(name, value)| name.len() + value.get().len());
        lengths.sum()
    }

    /// The object as one JSON value.
    #[must_use]
    pub fn to_raw(&self) -> Box<RawValue> {
        raw(self)
    }
}

/// Same members, same order, same value texts.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self
                .iter()
                .zip(other.iter())
                .all(|((a, x), (b, y))| a == b && x.get() == y.get())
    }
}

impl Eq for Object {}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys()).finish()
    }
}

/// The JSON text.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_raw().get())
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (name, value) in self.iter() {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// Only from `serde_json`, whose raw values this type is made of.
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Box::<RawValue>::deserialize(deserializer)?;
        Self::from_raw(&value).map_err(D::Error::custom)
    }
}

struct Members<'a> {
    refusal: &'a mut Option<JsonError>,
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = Object;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut object = Object::default();
        while let Some(name) = map.next_key::<String>()? {
            let full = object.len() >= MEMBERS_MAX;
            let refusal = match object.members.entry(name) {
                Entry::Occupied(entry) => JsonError::DuplicateMember(entry.key().clone()),
                Entry::Vacant(_) if full => JsonError::TooManyMembers,
                Entry::Vacant(entry) => {
                    entry.insert(map.next_value()?);
                    continue;
                }
            };
            let error = A::Error::custom(&refusal);
            *self.refusal = Some(refusal);
            return Err(error);
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Object, JsonError> {
        Object::parse(text.as_bytes())
    }

    fn nested(open: &str, close: &str, depth: usize) -> String {
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    }

    #[test]
    fn values_keep_the_text_they_arrived_in() {
        let text = r#"{"n":1.0e+2,"big":123456789012345678901234567890,"s":"\u0041\/","o":{ "b" : 1 ,"a":[ ]}}"#;
        let object = parse(text).unwrap();
        assert_eq!(object.to_string(), text);
        assert_eq!(object.get("n").unwrap().get(), "1.0e+2");
        assert_eq!(object.get_str("s").unwrap(), "A/");
        assert_eq!(Object::from_raw(&object.to_raw()).unwrap(), object);
        assert_eq!(serde_json::from_str::<Object>(text).unwrap(), object);
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for (text, error) in [
            ("", JsonError::Syntax),
            ("{", JsonError::Syntax),
            ("{}x", JsonError::Syntax),
            ("{} {}", JsonError::Syntax),
            ("\u{feff}{}", JsonError::Syntax),
            ("{'a':1}", JsonError::Syntax),
            (r#"{"a":1,}"#, JsonError::Syntax),
            (r#"{"a":01}"#, JsonError::Syntax),
            ("{\"a\":\"\u{1}\"}", JsonError::Syntax),
            (r#"{"\ud800":1}"#, JsonError::Syntax),
            ("[]", JsonError::NotAnObject),
            ("null", JsonError::NotAnObject),
            (" \n\"{}\" ", JsonError::NotAnObject),
            (
                r#"{"a":1,"a":1}"#,
                JsonError::DuplicateMember("a".to_owned()),
            ),
            (
                r#"{"name":1,"n\u0061me":2}"#,
                JsonError::DuplicateMember("name".to_owned()),
            ),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        assert_eq!(Object::parse(b"{\"a\":\"\xff\"}"), Err(JsonError::Syntax));
        assert_eq!(Object::parse(b"{\"\xc3\":1}"), Err(JsonError::Syntax));
    }

    #[test]
    fn nesting_is_bounded_wherever_it_hides() {
        let fits = format!("{{\"a\":{}}}", nested("[", "]", DEPTH_MAX - 1));
        assert!(parse(&fits).is_ok());
        for deep in [
            format!("{{\"a\":{}}}", nested("[", "]", DEPTH_MAX)),
            format!("{{\"a\":\"\\\"\",\"b\":{}}}", nested("[", "]", DEPTH_MAX)),
            nested("{\"a\":", "}", 1_000_000),
        ] {
            assert_eq!(parse(&deep), Err(JsonError::TooDeep));
        }
        let brackets_in_a_string = format!("{{\"a\":\"\\\\\\\"{}\"}}", "[".repeat(1000));
        assert!(parse(&brackets_in_a_string).is_ok());
    }

    #[test]
    fn members_are_bounded() {
        let object = |count: usize| {
            let members: Vec<_> = (0..count).map(|n| format!("\"m{n}\":{n}")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert_eq!(parse(&object(MEMBERS_MAX)).unwrap().len(), MEMBERS_MAX);
        assert_eq!(
            parse(&object(MEMBERS_MAX + 1)),
            Err(JsonError::TooManyMembers)
        );
    }

    #[test]
    fn elements_are_bounded_and_keep_their_text() {
        let array = |text: &str| elements(&RawValue::from_string(text.to_owned()).unwrap());
        let texts: Vec<_> = array(r#"[ 1.0 , "\u0041",{} ]"#).unwrap();
        let texts: Vec<_> = texts.iter().map(|element| element.get()).collect();
        assert_eq!(texts, ["1.0", r#""\u0041""#, "{}"]);
        assert_eq!(array("{}").unwrap_err(), JsonError::NotAnArray);
        let many = format!("[0{}]", ",0".repeat(ELEMENTS_MAX));
        assert_eq!(array(&many).unwrap_err(), JsonError::TooManyElements);
    }

    #[test]
    fn changes_keep_the_order_of_members() {
        let mut object = parse(r#"{"a":1,"b":2,"c":3,"d":4}"#).unwrap();
        object.insert("b", &20);
        assert!(object.rename("c", "z"));
        object.remove("a");
        object.insert("e", "five");
        assert_eq!(object.to_string(), r#"{"b":20,"z":3,"d":4,"e":"five"}"#);
        assert!(object.rename("b", "d"));
        assert_eq!(object.to_string(), r#"{"d":20,"z":3,"e":"five"}"#);
        assert!(object.rename("d", "d"));
        assert!(!object.rename("absent", "z"));
        assert_eq!(object.keys().collect::<Vec<_>>(), ["d", "z", "e"]);
    }

    #[test]
    fn only_strings_read_as_strings() {
        let object = parse(r#"{"s":"x","e":"","u":"\ud800","n":1,"null":null,"o":{}}"#).unwrap();
        assert_eq!(object.get_str("s").unwrap(), "x");
        assert_eq!(object.get_str("e").unwrap(), "");
        for name in ["u", "n", "null", "o", "absent"] {
            assert_eq!(object.get_str(name), None, "{name}");
        }
        assert!(object.get_object("o").unwrap().unwrap().is_empty());
        assert_eq!(object.get_object("n").unwrap(), Err(JsonError::NotAnObject));
        assert_eq!(object.get_as::<u8>("n").unwrap().unwrap(), 1);
    }

    #[test]
    fn debug_shows_names_and_never_values() {
        let object = parse(r#"{"token":"hunter2","nested":{"deep":"hunter3"}}"#).unwrap();
        assert_eq!(format!("{object:?}"), r#"{"token", "nested"}"#);
    }
}
