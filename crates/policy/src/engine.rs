//! The functions conditions may call, and the engine's environment they are in.
//!
//! Only what is here exists: the engine's own library is not loaded. Each costs at most a
//! pass over its operands.

use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

use cel::common::functions::Function;
use cel::common::types::{CelBool, CelInt, CelString, DYN_TYPE, STRING_TYPE, Type};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use regex_lite::{Regex, RegexBuilder};

/// Most bytes one compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 64 * 1024;

/// A text in a text: `subject.contains(part)` and its like.
type Test = fn(&str, &str) -> bool;
/// What a function gives.
type Given<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

/// Names of the functions on a text that take another: what [`test`] makes.
pub(super) const TEXT_TESTS: [&str; 3] = ["contains", "startsWith", "endsWith"];
/// `text.matches(pattern)`.
pub(super) const MATCHES: &str = "matches";
/// `text.lowerAscii()`.
pub(super) const LOWER: &str = "lowerAscii";
/// `size(x)` and `x.size()`.
pub(super) const SIZE: &str = "size";
/// `inNetwork(address, network)`.
pub(super) const IN_NETWORK: &str = "inNetwork";

/// What all conditions run in.
pub struct Engine(pub(super) Arc<Env>);

impl Default for Engine {
    fn default() -> Self {
        let mut env = Env::default();
        // The names differ, so nothing can be declared twice.
        let _ = declare(&mut env);
        Self(Arc::new(env))
    }
}

fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    let tests: [Function; 3] = [contains, starts_with, ends_with];
    for (name, test) in TEXT_TESTS.into_iter().zip(tests) {
        env.add_member_overload(name, name, STRING_TYPE, vec![STRING_TYPE], test)?;
    }
    env.add_member_overload(MATCHES, MATCHES, STRING_TYPE, vec![DYN_TYPE], matches)?;
    env.add_member_overload(LOWER, LOWER, STRING_TYPE, Vec::new(), lower)?;
    env.add_overload(SIZE, SIZE, vec![DYN_TYPE], size)?;
    env.add_member_overload(SIZE, "member_size", DYN_TYPE, Vec::new(), size)?;
    let operands = vec![DYN_TYPE, STRING_TYPE];
    env.add_overload(IN_NETWORK, IN_NETWORK, operands, in_network)
}

fn texts<'a>(args: &'a [CowVal<'_, '_>]) -> Option<(&'a str, &'a str)> {
    match args {
        [a, b] => Some((
            a.downcast_ref::<CelString<'_>>()?.inner(),
            b.downcast_ref::<CelString<'_>>()?.inner(),
        )),
        _ => None,
    }
}

fn answer<'b, 'v>(is: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(is))
}

fn test<'b, 'v>(args: &[CowVal<'b, 'v>], test: Test) -> Given<'b, 'v> {
    let (subject, part) = texts(args).ok_or(ExecutionError::MissingArgumentOrTarget)?;
    Ok(answer(test(subject, part)))
}

fn contains<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    test(&args, |subject, part| subject.contains(part))
}

fn starts_with<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    test(&args, |subject, part| subject.starts_with(part))
}

fn ends_with<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    test(&args, |subject, part| subject.ends_with(part))
}

fn matches<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    match args.as_slice() {
        [subject, pattern] => {
            let subject = subject.downcast_ref::<CelString<'_>>();
            let found = subject
                .zip(pattern.downcast_ref::<Pattern>())
                .map(|(subject, pattern)| pattern.0.is_match(subject.inner()));
            found
                .map(answer)
                .ok_or(ExecutionError::MissingArgumentOrTarget)
        }
        _ => Err(ExecutionError::MissingArgumentOrTarget),
    }
}

fn lower<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let text = args
        .first()
        .and_then(|text| text.downcast_ref::<CelString<'_>>())
        .ok_or(ExecutionError::MissingArgumentOrTarget)?;
    Ok(CowVal::owned(CelString::from(
        text.inner().to_ascii_lowercase(),
    )))
}

fn size<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let of = args
        .first()
        .ok_or(ExecutionError::MissingArgumentOrTarget)?;
    if let Some(text) = of.downcast_ref::<CelString<'_>>() {
        let count = i64::try_from(text.inner().chars().count()).unwrap_or(i64::MAX);
        return Ok(CowVal::owned(CelInt::from(count)));
    }
    let sizer = of
        .as_sizer()
        .ok_or(ExecutionError::MissingArgumentOrTarget)?;
    Ok(CowVal::owned(sizer.size()))
}

/// No address is in no network.
fn in_network<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Given<'b, 'v> {
    let network = args
        .get(1)
        .and_then(|network| Network::parse(network.downcast_ref::<CelString<'_>>()?.inner()));
    let network = network.ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let address = args
        .first()
        .and_then(|address| address.downcast_ref::<CelString<'_>>())
        .and_then(|address| address.inner().parse().ok());
    Ok(answer(
        address.is_some_and(|address| network.contains(address)),
    ))
}

/// Addresses with a common beginning, as `10.0.0.0/8` or `2001:db8::/32`.
#[derive(Debug, Clone)]
pub struct Network {
    base: IpAddr,
    length: u32,
}

impl Network {
    /// A network, or one address.
    pub fn parse(text: &str) -> Option<Self> {
        let (base, length) = match text.split_once('/') {
            Some((base, length)) => (base, Some(length)),
            None => (text, None),
        };
        let base = base.parse::<IpAddr>().ok()?.to_canonical();
        let whole = if base.is_ipv4() { 32 } else { 128 };
        let length = match length {
            Some(length) => length.parse().ok().filter(|length| *length <= whole)?,
            None => whole,
        };
        Some(Self { base, length })
    }

    /// Whether the address is in it. An IPv4 address inside an IPv6 one is an IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let shared = |a: u128, b: u128, width: u32| {
            // A shift by the whole width is none at all.
            let kept = a.checked_shr(width - self.length).unwrap_or_default();
            kept == b.checked_shr(width - self.length).unwrap_or_default()
        };
        match (self.base, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => shared(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => shared(a.to_bits(), b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// A regular expression, compiled with the rule it stands in.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// The pattern, if it is one and small.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut builder = RegexBuilder::new(text);
        builder.size_limit(PATTERN_BYTES_MAX).build().ok().map(Self)
    }
}

static PATTERN_TYPE: Type = Type::new_unspecified_type("pattern");

impl Val for Pattern {
    fn get_type(&self) -> &Type {
        &PATTERN_TYPE
    }

    fn cel_type() -> &'static Type {
        &PATTERN_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(self.0.clone()))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Pattern {}

/// The answer while there are steps left.
pub(super) static GO_ON: CelBool = CelBool::TRUE;
