//! A condition: read once, weighed for every call and every entry of a list.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cel::common::ast::{Expr, operators};
use cel::common::types::CelBool;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::parser::{Expression, PrattParser};
use cel::{Context, ExecutionError, Value};

use super::check::{Checked, DEPTH_MAX, PATTERN, STEP, Scope, check};
use super::engine::{Engine, GO_ON, Pattern};
use super::facts::Facts;
use super::fields::ANNOTATIONS;
use super::outcome::Outcome;

/// Most steps all the loops of one condition take in one evaluation.
pub const STEPS_MAX: usize = 10_000;
/// Deepest nesting the parser follows; [`DEPTH_MAX`] is what is left of it afterwards.
const PARSER_DEPTH_MAX: u16 = 40;

const _: () = assert!(PARSER_DEPTH_MAX as usize <= DEPTH_MAX);

/// A condition that can be weighed.
pub struct Condition {
    expression: Expression,
    patterns: Vec<Pattern>,
    /// Whether it asks what an upstream says its tool does.
    pub annotations: bool,
}

/// What a condition comes to, and the first failure on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighed {
    /// What it can come to.
    pub outcome: Outcome,
    /// In fixed words: what failed may quote arguments.
    pub failure: Option<&'static str>,
}

/// What is wrong with a condition, and what to do about it.
pub type Flaw = (String, String);

impl Condition {
    /// Reads a condition, or says everything that is wrong with it.
    pub fn parse(text: &str, scope: &Scope<'_>) -> Result<Self, Vec<Flaw>> {
        let parser = PrattParser::new().max_recursion_depth(PARSER_DEPTH_MAX);
        let mut expression = parser.parse(text).map_err(|errors| {
            let flaw = |error: &cel::ParseError| {
                let (line, column) = error.pos;
                (
                    format!(
                        "is not CEL: {} (its line {line}, column {column})",
                        error.msg
                    ),
                    "see the language's introduction at https://cel.dev".to_owned(),
                )
            };
            errors.errors.iter().map(flaw).collect::<Vec<_>>()
        })?;
        let Checked {
            flaws,
            patterns,
            fields,
        } = check(&mut expression, scope);
        if !flaws.is_empty() {
            return Err(flaws);
        }
        Ok(Self {
            expression,
            patterns,
            annotations: fields.iter().any(|field| field.starts_with(ANNOTATIONS)),
        })
    }

    /// What it comes to for these facts.
    pub fn weigh(&self, engine: &Engine, facts: &Facts<'_>) -> Weighed {
        let view = View {
            facts,
            patterns: &self.patterns,
            steps: AtomicUsize::new(STEPS_MAX),
            unknown: AtomicBool::new(false),
        };
        let mut context = Context::with_env(Arc::clone(&engine.0));
        context.set_variable_resolver(&view);
        let mut failure = None;
        let outcome = weigh(&self.expression, &context, &view, &mut failure);
        Weighed {
            outcome,
            failure: failure.filter(|_| outcome.fails && outcome != Outcome::ANY),
        }
    }
}

/// The connectives here, on sets of answers; everything else in the engine.
fn weigh(
    expression: &Expression,
    context: &Context<'_, '_>,
    view: &View<'_>,
    failure: &mut Option<&'static str>,
) -> Outcome {
    if let Expr::Call(call) = &expression.expr
        && call.target.is_none()
    {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => {
                let a = weigh(a, context, view, failure);
                if a == Outcome::NO {
                    return a;
                }
                return a.and(weigh(b, context, view, failure));
            }
            (operators::LOGICAL_OR, [a, b]) => {
                let a = weigh(a, context, view, failure);
                if a == Outcome::YES {
                    return a;
                }
                return a.or(weigh(b, context, view, failure));
            }
            (operators::LOGICAL_NOT, [a]) => return weigh(a, context, view, failure).not(),
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let condition = weigh(condition, context, view, failure);
                if condition == Outcome::YES {
                    return weigh(then, context, view, failure);
                }
                if condition == Outcome::NO {
                    return weigh(otherwise, context, view, failure);
                }
                let then = weigh(then, context, view, failure);
                let otherwise = weigh(otherwise, context, view, failure);
                return condition.choose(then, otherwise);
            }
            _ => {}
        }
    }
    view.unknown.store(false, Ordering::Relaxed);
    let fault = match Value::resolve_val(expression, context) {
        Ok(value) => match value.downcast_ref::<CelBool>() {
            Some(answer) => return Outcome::of(*answer.inner()),
            None => "neither true nor false",
        },
        // It stopped at what is not known yet.
        Err(_) if view.unknown.load(Ordering::Relaxed) => return Outcome::ANY,
        Err(_) if view.steps.load(Ordering::Relaxed) == 0 => "too many steps",
        Err(error) => label(&error),
    };
    failure.get_or_insert(fault);
    Outcome::FAILURE
}

/// A failure in words that quote nothing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the engine may learn to fail in new ways"
)]
fn label(error: &ExecutionError) -> &'static str {
    match error {
        ExecutionError::NoSuchKey(_) => "no such field",
        ExecutionError::UndeclaredReference(_) => "arguments that cannot be read",
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::MissingArgumentOrTarget
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::ValuesNotComparable(..) => "operands of another kind",
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero"
        }
        ExecutionError::Overflow(..) => "a number too large",
        ExecutionError::IndexOutOfBounds(_) => "an index beyond the end",
        _ => "no answer",
    }
}

/// The facts as the engine asks for them, by name.
struct View<'a> {
    facts: &'a Facts<'a>,
    patterns: &'a [Pattern],
    steps: AtomicUsize,
    /// Whether what is not known was asked for.
    unknown: AtomicBool,
}

impl VariableResolver for View<'_> {
    fn resolve<'b>(&'b self, name: &str) -> Option<CowVal<'b, 'b>> {
        if name == STEP {
            let left = self.steps.load(Ordering::Relaxed).checked_sub(1)?;
            self.steps.store(left, Ordering::Relaxed);
            return (left > 0).then(|| CowVal::Borrowed(&GO_ON));
        }
        if let Some(number) = name.strip_prefix(PATTERN) {
            let pattern = self.patterns.get(number.parse::<usize>().ok()?)?;
            return Some(CowVal::Borrowed(pattern));
        }
        self.facts
            .field(name, || self.unknown.store(true, Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parser_agrees_with_the_engines_own() {
        let cases = [
            "principal.roles.exists(r, r == 'a' || r == \"b\") && !(args.x in [1, 2u, -3, 4.5e1])",
            "has(args.a.b) ? args.a.b.matches('^a\\\\d$') : args['c'][0] % 2 == 1",
            "args.l.map(x, x * 2 + 1).filter(y, y >= 3 && y <= 9).all(z, z != 5)",
            "a || b && c || !d == (e < f) && true ? null : {'k': [r'raw\\n', '''x''']}",
            "size(args.x) > 0 && args.x.size() - -1 / 2 == 0x1F",
            "args.l.exists_one(i, i.ok) || args.m.n.o.p",
            "1 + 2 * 3 - 4 / 5 % 6 == 7 // a comment",
        ];
        for case in cases {
            let ours = PrattParser::new().parse(case).unwrap();
            let theirs = cel::parser::Parser::new().parse(case).unwrap();
            assert_eq!(without_ids(ours), without_ids(theirs), "{case}");
        }
    }

    /// Positions differ between the parsers and mean nothing to evaluation.
    fn without_ids(expression: Expression) -> String {
        let text = format!("{expression:?}");
        let mut parts = text.split("id: ");
        let mut kept = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            kept.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
        }
        kept
    }
}
