//! What a decision is about, as conditions see it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::OnceLock;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::{CowVal, Val};
use serde_json::value::RawValue;
use tidegate_mcp::json::{Object, as_str, elements};
use tidegate_mcp::timestamp;

use super::fields::{ANNOTATIONS, ARGS, Phase, WEEKDAYS};

/// Most values in the arguments of one call that rules look into; what has more fails.
pub const ARGUMENT_VALUES_MAX: usize = 10_000;
/// Largest arguments rules look into, in bytes.
pub const ARGUMENT_BYTES_MAX: usize = 256 * 1024;

const DAY_MS: u64 = 86_400_000;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A tool by its own name, and what its upstream says it does, if that is known.
    Tool(&'a str, Option<Hints>),
    /// A prompt by its own name.
    Prompt(&'a str),
    /// A resource by its own URI; a template has none yet.
    Resource(Option<&'a str>),
    /// Something of a kind, of which nothing else is known.
    Something(Phase),
}

impl Default for Subject<'_> {
    fn default() -> Self {
        Self::Resource(None)
    }
}

impl Subject<'_> {
    /// What a rule must be about to concern it.
    pub const fn phase(&self) -> Phase {
        match self {
            Self::Tool(..) => Phase::Tool,
            Self::Prompt(_) => Phase::Prompt,
            Self::Resource(_) => Phase::Resource,
            Self::Something(phase) => *phase,
        }
    }
}

/// What an upstream says its tool does (`annotations`); where it says nothing, what the
/// protocol takes for granted, which is the worst. Only as true as the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hints {
    /// It changes nothing.
    pub read_only: bool,
    /// It may destroy.
    pub destructive: bool,
    /// Twice is as once.
    pub idempotent: bool,
    /// It reaches beyond the upstream.
    pub open_world: bool,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            read_only: false,
            destructive: true,
            idempotent: false,
            open_world: true,
        }
    }
}

impl Hints {
    /// The hints of a tool as its upstream lists it.
    pub fn of(tool: &Object) -> Self {
        let annotations = tool.get_object("annotations").and_then(Result::ok);
        let hint = |name: &str, otherwise: bool| {
            let said = annotations.as_ref().and_then(|all| all.get_as(name));
            said.and_then(Result::ok).unwrap_or(otherwise)
        };
        let worst = Self::default();
        Self {
            read_only: hint("readOnlyHint", worst.read_only),
            destructive: hint("destructiveHint", worst.destructive),
            idempotent: hint("idempotentHint", worst.idempotent),
            open_world: hint("openWorldHint", worst.open_world),
        }
    }

    fn named(self, name: &str) -> Option<bool> {
        match name {
            "readOnlyHint" => Some(self.read_only),
            "destructiveHint" => Some(self.destructive),
            "idempotentHint" => Some(self.idempotent),
            "openWorldHint" => Some(self.open_world),
            _ => None,
        }
    }
}

/// The arguments of what is asked for.
#[derive(Debug, Clone, Copy, Default)]
pub enum Arguments<'a> {
    /// Not known: it is listed, not called.
    #[default]
    Unknown,
    /// As they arrived; none is the same as an empty object.
    Known(Option<&'a RawValue>),
}

/// Everything conditions can ask for. What is not there is null to them.
#[derive(Default)]
pub struct Facts<'a> {
    /// Token issuer.
    pub issuer: Option<&'a str>,
    /// Token subject.
    pub subject: Option<&'a str>,
    /// OAuth client.
    pub client: Option<&'a str>,
    /// Tenant.
    pub tenant: Option<&'a str>,
    /// The principal's roles.
    pub roles: Option<&'a BTreeSet<String>>,
    /// The token's scopes.
    pub scopes: Option<&'a BTreeSet<String>>,
    /// Up to which classification the principal is cleared.
    pub clearance: &'a str,
    /// The upstream's configured name.
    pub upstream: &'a str,
    /// How closely its data is held.
    pub classification: &'a str,
    /// The client's network address.
    pub address: Option<&'a str>,
    /// The client's country.
    pub country: Option<&'a str>,
    /// The time, milliseconds since the epoch.
    pub now_ms: u64,
    /// What is asked for.
    pub about: Subject<'a>,
    /// Its arguments.
    pub arguments: Arguments<'a>,
    /// The arguments as the engine takes them.
    pub made: Made,
}

/// Arguments as the engine takes them, made when the first rule looks at them.
#[derive(Default)]
pub struct Made(OnceLock<Option<CelMap<'static>>>);

impl Facts<'_> {
    /// The field of that name; `unknown` is called if it exists and is not known yet.
    pub(super) fn field(&self, name: &str, unknown: impl FnOnce()) -> Option<CowVal<'_, '_>> {
        let value = match name {
            "principal.issuer" => optional(self.issuer),
            "principal.subject" => optional(self.subject),
            "principal.client" => optional(self.client),
            "principal.tenant" => optional(self.tenant),
            "principal.roles" => texts(self.roles.into_iter().flatten()),
            "principal.scopes" => texts(self.scopes.into_iter().flatten()),
            "principal.clearance" => text(self.clearance),
            "upstream.name" => text(self.upstream),
            "upstream.classification" => text(self.classification),
            "request.address" => optional(self.address),
            "request.country" => optional(self.country),
            "now.date" => self.moment(0..10),
            "now.time" => self.moment(11..16),
            "now.hour" => {
                let hours = self.now_ms / 3_600_000 % 24;
                CowVal::owned(CelInt::from(i64::try_from(hours).unwrap_or_default()))
            }
            "now.weekday" => {
                // 1970 began on a Thursday.
                let day = usize::try_from((self.now_ms / DAY_MS + 4) % 7).unwrap_or_default();
                text(WEEKDAYS.get(day).copied().unwrap_or_default())
            }
            ARGS => match self.arguments {
                Arguments::Unknown => {
                    unknown();
                    return None;
                }
                Arguments::Known(arguments) => {
                    let values = self.made.0.get_or_init(|| values(arguments)).as_ref()?;
                    CowVal::Borrowed(values)
                }
            },
            _ => return self.subject_field(name, unknown),
        };
        Some(value)
    }

    fn subject_field(&self, name: &str, unknown: impl FnOnce()) -> Option<CowVal<'_, '_>> {
        match (name, self.about) {
            ("tool.name", Subject::Tool(own, _))
            | ("prompt.name", Subject::Prompt(own))
            | ("resource.uri", Subject::Resource(Some(own))) => Some(text(own)),
            ("resource.uri", Subject::Resource(None)) | (_, Subject::Something(_)) => {
                unknown();
                None
            }
            (name, Subject::Tool(_, hints)) => {
                let name = name.strip_prefix(ANNOTATIONS)?;
                let Some(hints) = hints else {
                    unknown();
                    return None;
                };
                Some(CowVal::owned(CelBool::from(hints.named(name)?)))
            }
            (_, Subject::Prompt(_) | Subject::Resource(_)) => None,
        }
    }

    fn moment(&self, part: std::ops::Range<usize>) -> CowVal<'static, 'static> {
        let moment = timestamp::format_utc(self.now_ms);
        let part = moment.get(part).unwrap_or_default().to_owned();
        CowVal::owned(CelString::from(part))
    }
}

fn text<'v>(text: &'v str) -> CowVal<'v, 'v> {
    CowVal::owned(CelString::from(text))
}

fn optional(value: Option<&str>) -> CowVal<'_, '_> {
    value.map_or_else(|| CowVal::owned(CelNull), text)
}

fn texts<'v>(names: impl IntoIterator<Item = &'v String>) -> CowVal<'v, 'v> {
    let boxed =
        |name: &'v String| -> Box<dyn Val + 'v> { Box::new(CelString::from(name.as_str())) };
    let names: Vec<Box<dyn Val + 'v>> = names.into_iter().map(boxed).collect();
    CowVal::owned(CelList::from(names))
}

/// The arguments as the engine takes them; none where they are too large, no object, or
/// could be read in two ways.
fn values(arguments: Option<&RawValue>) -> Option<CelMap<'static>> {
    let Some(arguments) = arguments else {
        return Some(CelMap::default());
    };
    if arguments.get().len() > ARGUMENT_BYTES_MAX {
        return None;
    }
    object(arguments, &mut { ARGUMENT_VALUES_MAX })
}

fn object(value: &RawValue, left: &mut usize) -> Option<CelMap<'static>> {
    // Refuses a name that occurs twice: the upstream may read the other one.
    let object = Object::from_raw(value).ok()?;
    #[expect(clippy::disallowed_types, reason = "the engine's maps are made of it")]
    let mut entries = std::collections::HashMap::with_capacity(object.len());
    for (name, value) in object.iter() {
        let key = CelMapKey::from(name.to_owned());
        entries.insert(key, any(value, left)?);
    }
    Some(CelMap::from(entries))
}

fn any(value: &RawValue, left: &mut usize) -> Option<Box<dyn Val>> {
    *left = left.checked_sub(1)?;
    let text = value.get();
    Some(match text.bytes().next()? {
        b'{' => Box::new(object(value, left)?),
        b'[' => {
            let elements = elements(value).ok()?;
            let items: Option<Vec<Box<dyn Val>>> =
                elements.iter().map(|element| any(element, left)).collect();
            Box::new(CelList::from(items?))
        }
        b'"' => Box::new(CelString::from(as_str(value).map(Cow::into_owned)?)),
        b't' => Box::new(CelBool::from(true)),
        b'f' => Box::new(CelBool::from(false)),
        b'n' => Box::new(CelNull),
        _ => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => Box::new(CelInt::from(number)),
            (Err(_), Ok(number)) => Box::new(CelUInt::from(number)),
            (Err(_), Err(_)) => {
                let number = text.parse::<f64>().ok().filter(|n| n.is_finite())?;
                Box::new(CelDouble::from(number))
            }
        },
    })
}
