//! What is wrong with a condition before it ever runs, and what it needs in order to run
//! within bounds.
//!
//! One walk over the expression: every name must be a field that exists where the rule
//! applies, every word one the field can have, every function one there is, every operand
//! of a kind the operator takes. On the way each loop gets a step that is counted, and each
//! pattern is compiled and replaced by a name for it.

mod calls;

use std::collections::BTreeSet;
use std::mem;

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

use super::engine::Pattern;
use super::fields::{FIELDS, Kind, Phase, Words};

/// Most parts of one condition, loops written out.
pub const PARTS_MAX: usize = 512;
/// Deepest nesting of one condition.
pub const DEPTH_MAX: usize = 40;
/// The name that counts a step of a loop and is true, as long as there are steps left.
pub(super) const STEP: &str = "@step";
/// Begins the names of patterns; their number follows.
pub(super) const PATTERN: &str = "@pattern";

/// What a condition may name.
pub struct Scope<'a> {
    /// What its rule is about; a field must exist in all of it.
    pub phases: &'a [Phase],
    /// Roles.
    pub roles: &'a BTreeSet<&'a str>,
    /// Names of upstreams.
    pub upstreams: &'a BTreeSet<&'a str>,
    /// Tools' own names.
    pub tools: &'a BTreeSet<&'a str>,
}

/// What a walk found.
pub(super) struct Checked {
    /// What is wrong, each with what to do about it.
    pub(super) flaws: Vec<(String, String)>,
    pub(super) patterns: Vec<Pattern>,
    /// Names of the fields it speaks of.
    pub(super) fields: BTreeSet<&'static str>,
}

/// Checks a condition and makes it ready to run.
pub(super) fn check(expression: &mut Expression, scope: &Scope<'_>) -> Checked {
    let mut walk = Walk {
        scope,
        bound: Vec::new(),
        parts: 0,
        depth: 0,
        found: Checked {
            flaws: Vec::new(),
            patterns: Vec::new(),
            fields: BTreeSet::new(),
        },
    };
    let kind = walk.kind(expression);
    if !matches!(kind, Kind::Bool | Kind::Any) {
        walk.flaw(
            "is not a condition",
            "compare it with something, so that it is true or false",
        );
    }
    walk.found
}

struct Walk<'a> {
    scope: &'a Scope<'a>,
    /// Variables of the loops around, the innermost last.
    bound: Vec<Variable>,
    parts: usize,
    depth: usize,
    found: Checked,
}

struct Variable {
    name: String,
    kind: Kind,
    /// The texts of the list it goes through, where that is written out.
    texts: Vec<String>,
}

impl Walk<'_> {
    fn flaw(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        let flaw = (message.into(), remedy.into());
        if !self.found.flaws.contains(&flaw) {
            self.found.flaws.push(flaw);
        }
    }

    fn kind(&mut self, expression: &mut Expression) -> Kind {
        self.parts += 1;
        if self.parts > PARTS_MAX || self.depth >= DEPTH_MAX {
            let remedy = format!(
                "split it into several rules; it may have {PARTS_MAX} parts, {DEPTH_MAX} deep"
            );
            self.flaw("is too large or too deeply nested", remedy);
            return Kind::Any;
        }
        self.depth += 1;
        let kind = self.inner(expression);
        self.depth -= 1;
        kind
    }

    fn inner(&mut self, expression: &mut Expression) -> Kind {
        if let Some(path) = path(expression) {
            return self.named(&path);
        }
        match &mut expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => Kind::Bool,
                LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => {
                    Kind::Number
                }
                LiteralValue::String(_) => Kind::Text(Words::Free),
                LiteralValue::Null => Kind::Null,
                LiteralValue::Bytes(_) => self.unsupported("bytes"),
            },
            Expr::Select(select) => {
                let of = self.kind(&mut select.operand);
                if of != Kind::Any {
                    self.flaw(
                        format!(
                            "looks for `{}` in something that has no fields",
                            select.field
                        ),
                        "only `args`, and what is in it, has fields of its own",
                    );
                }
                if select.test { Kind::Bool } else { Kind::Any }
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let kinds = list.elements.iter_mut().map(|element| self.kind(element));
                let texts = kinds.fold(true, |all, kind| all & matches!(kind, Kind::Text(_)));
                if texts {
                    Kind::Texts(Words::Free)
                } else {
                    Kind::List
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.kind(&mut entry.key);
                        self.kind(&mut entry.value);
                    }
                }
                Kind::Any
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) => self.unsupported("messages"),
            // A name is a path.
            Expr::Ident(_) | Expr::Unspecified => self.unsupported("this"),
        }
    }

    fn unsupported(&mut self, what: &str) -> Kind {
        self.flaw(
            format!("uses {what}, which policies do not have"),
            "use texts, numbers, true, false, null, lists and maps",
        );
        Kind::Any
    }

    /// A name with its fields, such as `principal.roles`.
    fn named(&mut self, path: &Path) -> Kind {
        if let Some(Variable { kind, .. }) = self.variable(&path.root) {
            let kind = *kind;
            if path.rest.is_empty() || kind == Kind::Any {
                return if path.test { Kind::Bool } else { kind };
            }
            let message = format!("`{}` has no fields", path.root);
            self.flaw(message, "compare it as a whole");
            return Kind::Any;
        }
        // Of arguments only their beginning is known.
        let whole = path.whole();
        let field = FIELDS.iter().find(|(name, kind, _)| match kind {
            Kind::Any => *name == path.root,
            Kind::Null
            | Kind::Bool
            | Kind::Number
            | Kind::Text(_)
            | Kind::Texts(_)
            | Kind::List => *name == whole,
        });
        let Some((name, kind, phases)) = field else {
            self.unknown(path, &whole);
            return Kind::Any;
        };
        for phase in self.scope.phases {
            if !phases.contains(phase) {
                let message = format!("`{name}` does not exist in a rule for {}", phase.plural());
                let exists = phases.iter().map(|phase| phase.plural());
                let exists: Vec<&str> = exists.collect();
                let remedy = format!(
                    "write a rule of its own for {}, or leave the field out",
                    exists.join(" or ")
                );
                self.flaw(message, remedy);
            }
        }
        self.found.fields.insert(name);
        if path.test {
            if *kind != Kind::Any || path.rest.is_empty() {
                let message = format!("asks whether there is `{whole}`, which there always is");
                self.flaw(message, "compare it with null instead of using has()");
            }
            return Kind::Bool;
        }
        *kind
    }

    fn variable(&self, name: &str) -> Option<&Variable> {
        self.bound.iter().rev().find(|bound| bound.name == name)
    }

    fn unknown(&mut self, path: &Path, whole: &str) {
        let exists = |name: &str| {
            let (_, _, phases) = FIELDS.iter().find(|(field, ..)| *field == name)?;
            self.scope
                .phases
                .iter()
                .all(|p| phases.contains(p))
                .then_some(())
        };
        let known: Vec<&str> = FIELDS
            .iter()
            .map(|(name, ..)| *name)
            .filter(|name| exists(name).is_some())
            .collect();
        let root = format!("{}.", path.root);
        let near: Vec<&str> = known
            .iter()
            .copied()
            .filter(|name| name.starts_with(&root))
            .collect();
        let near = if near.is_empty() { known } else { near };
        self.flaw(
            format!("`{whole}` is not a field"),
            format!("use one of: {}", near.join(", ")),
        );
    }

    fn comprehension(&mut self, loops: &mut ComprehensionExpr) -> Kind {
        let item = match self.kind(&mut loops.iter_range) {
            Kind::Texts(words) => Kind::Text(words),
            Kind::Any | Kind::List => Kind::Any,
            Kind::Null | Kind::Bool | Kind::Number | Kind::Text(_) => {
                self.flaw("loops over something that is no list", "loop over a list");
                Kind::Any
            }
        };
        let start = self.kind(&mut loops.accu_init);
        // Over an empty list of texts: what is collected may be anything.
        let start = if matches!(start, Kind::Texts(_)) {
            Kind::List
        } else {
            start
        };
        self.bound.push(Variable {
            name: loops.iter_var.clone(),
            kind: item,
            texts: self.elements(&loops.iter_range),
        });
        self.bound.push(Variable {
            name: loops.accu_var.clone(),
            kind: start,
            texts: Vec::new(),
        });
        self.kind(&mut loops.loop_cond);
        self.kind(&mut loops.loop_step);
        let kind = self.kind(&mut loops.result);
        self.bound.truncate(self.bound.len() - 2);
        count(loops);
        kind
    }
}

/// Puts a step that is counted into a loop, where an error in it ends the loop. The engine
/// recognises its own loops by their shape, which stays.
fn count(loops: &mut ComprehensionExpr) {
    let endless = matches!(loops.loop_cond.expr, Expr::Literal(_));
    let place = match &mut loops.loop_step.expr {
        Expr::Call(call) if endless && call.func_name == operators::CONDITIONAL => {
            call.args.first_mut()
        }
        Expr::Call(call) if endless && call.func_name == operators::ADD => {
            call.args.get_mut(1).and_then(first_item)
        }
        Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::Ident(_)
        | Expr::List(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Unspecified => None,
    };
    let place = place.unwrap_or(&mut loops.loop_cond);
    let counted = mem::take(place);
    let id = counted.id;
    let ident = Expression {
        id,
        expr: Expr::Ident(STEP.to_owned()),
    };
    let never = Expression {
        id,
        expr: Expr::Literal(LiteralValue::Boolean(false.into())),
    };
    *place = Expression {
        id,
        expr: Expr::Call(CallExpr {
            func_name: operators::CONDITIONAL.to_owned(),
            target: None,
            args: vec![ident, counted, never],
        }),
    };
}

fn first_item(expression: &mut Expression) -> Option<&mut Expression> {
    match &mut expression.expr {
        Expr::List(list) => list.elements.first_mut(),
        Expr::Call(_)
        | Expr::Comprehension(_)
        | Expr::Ident(_)
        | Expr::Literal(_)
        | Expr::Map(_)
        | Expr::Select(_)
        | Expr::Struct(_)
        | Expr::Unspecified => None,
    }
}

/// A name and the fields after it.
struct Path {
    root: String,
    rest: Vec<String>,
    /// Whether it only asks if the last field is there.
    test: bool,
}

impl Path {
    fn whole(&self) -> String {
        let parts = std::iter::once(self.root.as_str());
        let parts: Vec<&str> = parts.chain(self.rest.iter().map(String::as_str)).collect();
        parts.join(".")
    }
}

fn path(expression: &Expression) -> Option<Path> {
    if let Expr::Ident(name) = &expression.expr {
        return Some(Path {
            root: name.clone(),
            rest: Vec::new(),
            test: false,
        });
    }
    let Expr::Select(select) = &expression.expr else {
        return None;
    };
    let mut path = path(&select.operand).filter(|path| !path.test)?;
    path.rest.push(select.field.clone());
    path.test = select.test;
    Some(path)
}
