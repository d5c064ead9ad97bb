//! What functions and operators take, and the words that texts are compared with.

use cel::common::ast::{CallExpr, Expr, LiteralValue, operators};
use cel::parser::Expression;

use super::super::engine::{IN_NETWORK, LOWER, MATCHES, Network, Pattern, SIZE, TEXT_TESTS};
use super::super::fields::{Kind, Words, form, has_form};
use super::{PATTERN, Walk};

impl Walk<'_> {
    pub(super) fn call(&mut self, call: &mut CallExpr) -> Kind {
        if let Some(target) = &mut call.target {
            let of = self.kind(target);
            return self.method(of, call);
        }
        let kinds: Vec<Kind> = call.args.iter_mut().map(|arg| self.kind(arg)).collect();
        match (call.func_name.as_str(), kinds.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, b]) => {
                self.wants(&[*a, *b], Kind::Bool, "&&, || and !");
                Kind::Bool
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [a]) => {
                self.wants(&[*a], Kind::Bool, "&&, || and !");
                Kind::Bool
            }
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                self.wants(&[*condition], Kind::Bool, "?:");
                if then == otherwise { *then } else { Kind::Any }
            }
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                self.comparable(*a, *b);
                self.words(*a, &call.args[1]);
                self.words(*b, &call.args[0]);
                Kind::Bool
            }
            (
                operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [a, b],
            ) => {
                self.ordered(*a, *b);
                self.words(*a, &call.args[1]);
                self.words(*b, &call.args[0]);
                Kind::Bool
            }
            (operators::IN, [a, b]) => self.within(*a, *b, &call.args),
            (operators::ADD, [a, b]) => match (a, b) {
                (Kind::Text(_), Kind::Text(_)) => Kind::Text(Words::Free),
                (Kind::Number, Kind::Number) => Kind::Number,
                (Kind::List | Kind::Texts(_), Kind::List | Kind::Texts(_)) => Kind::List,
                _ => Kind::Any,
            },
            (
                operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO
                | operators::NEGATE,
                numbers,
            ) => {
                self.wants(numbers, Kind::Number, "arithmetic");
                Kind::Number
            }
            (operators::INDEX, [of, _]) => {
                match of {
                    Kind::Any | Kind::List => return Kind::Any,
                    Kind::Texts(words) => return Kind::Text(*words),
                    Kind::Null | Kind::Bool | Kind::Number | Kind::Text(_) => {}
                }
                self.flaw(
                    "indexes something that is no list and has no fields",
                    "index `args`",
                );
                Kind::Any
            }
            (SIZE, [of]) => self.size(*of),
            (IN_NETWORK, [of, _]) => {
                self.wants(&[*of], Kind::Text(Words::Free), IN_NETWORK);
                let network = text(&call.args[1]);
                if network.and_then(Network::parse).is_none() {
                    self.flaw(
                        "names a network that is none",
                        "write it as a text such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
                    );
                }
                Kind::Bool
            }
            (name, _) => self.no_function(name),
        }
    }

    fn method(&mut self, of: Kind, call: &mut CallExpr) -> Kind {
        let kinds: Vec<Kind> = call.args.iter_mut().map(|arg| self.kind(arg)).collect();
        let name = call.func_name.as_str();
        match (name, kinds.as_slice()) {
            (_, [part]) if TEXT_TESTS.contains(&name) => {
                self.wants(&[of, *part], Kind::Text(Words::Free), name);
                Kind::Bool
            }
            (MATCHES, [_]) => {
                self.wants(&[of], Kind::Text(Words::Free), name);
                match call.args.first().and_then(text).and_then(Pattern::parse) {
                    Some(pattern) => {
                        let number = self.found.patterns.len();
                        self.found.patterns.push(pattern);
                        if let Some(arg) = call.args.first_mut() {
                            arg.expr = Expr::Ident(format!("{PATTERN}{number}"));
                        }
                    }
                    None => self.flaw(
                        "has a pattern that is none, or is too large",
                        "write a regular expression as one text; look-around and back-references do not exist",
                    ),
                }
                Kind::Bool
            }
            (LOWER, []) => {
                self.wants(&[of], Kind::Text(Words::Free), name);
                Kind::Text(Words::Free)
            }
            (SIZE, []) => self.size(of),
            (name, _) => {
                let name = name.to_owned();
                self.no_function(&name)
            }
        }
    }

    fn no_function(&mut self, name: &str) -> Kind {
        self.flaw(
            format!("calls `{name}`, which is no function, or not one with these operands"),
            "use contains, startsWith, endsWith, matches, lowerAscii, size, inNetwork, or the macros has, all, \
             exists, exists_one, map and filter",
        );
        Kind::Any
    }

    fn size(&mut self, of: Kind) -> Kind {
        if matches!(of, Kind::Bool | Kind::Number | Kind::Null) {
            self.flaw(
                "asks the size of something that has none",
                "use size() on texts, lists and maps",
            );
        }
        Kind::Number
    }

    fn wants(&mut self, kinds: &[Kind], wanted: Kind, by: &str) {
        for kind in kinds {
            if !fits(*kind, wanted) {
                let what = noun(wanted);
                self.flaw(
                    format!("gives {by} {}", noun(*kind)),
                    format!("give it {what}"),
                );
            }
        }
    }

    fn comparable(&mut self, a: Kind, b: Kind) {
        let null = a == Kind::Null || b == Kind::Null;
        if !null && !fits(a, b) && !fits(b, a) {
            let (a, b) = (noun(a), noun(b));
            self.flaw(
                format!("compares {a} with {b}, which are never equal"),
                "compare like with like",
            );
        }
    }

    fn ordered(&mut self, a: Kind, b: Kind) {
        let ordered = |kind| matches!(kind, Kind::Any | Kind::Number | Kind::Text(_));
        if !ordered(a) || !ordered(b) || !(fits(a, b) || fits(b, a)) {
            let (a, b) = (noun(a), noun(b));
            self.flaw(
                format!("asks which is more of {a} and {b}"),
                "order numbers with numbers and texts with texts",
            );
        }
        // The order of the alphabet is not theirs.
        let words = [a, b].contains(&Kind::Text(Words::Classification));
        if words {
            self.flaw(
                "orders classifications by their letters",
                "list those that are meant: upstream.classification in [\"public\", \"internal\"]",
            );
        }
    }

    fn within(&mut self, a: Kind, b: Kind, args: &[Expression]) -> Kind {
        let [item, list] = args else {
            return Kind::Bool;
        };
        match b {
            Kind::Any | Kind::List => {}
            Kind::Texts(words) => {
                self.comparable(a, Kind::Text(Words::Free));
                self.words(Kind::Text(words), item);
                for text in self.elements(list) {
                    self.word(a, &text);
                }
            }
            Kind::Null | Kind::Bool | Kind::Number | Kind::Text(_) => self.flaw(
                format!("looks for something in {}", noun(b)),
                "use `in` with a list; for a text in a text use contains()",
            ),
        }
        Kind::Bool
    }

    /// Texts that are compared with words, each by itself or in a list, must be among them.
    fn words(&mut self, kind: Kind, with: &Expression) {
        let (kind, texts) = match kind {
            Kind::Texts(words) => (Kind::Text(words), self.elements(with)),
            Kind::Any | Kind::Null | Kind::Bool | Kind::Number | Kind::Text(_) | Kind::List => {
                (kind, self.texts(with))
            }
        };
        for text in texts {
            self.word(kind, &text);
        }
    }

    /// The texts an operand is known to be one of: a literal, or a loop's variable.
    fn texts(&self, operand: &Expression) -> Vec<String> {
        if let Expr::Ident(name) = &operand.expr {
            let variable = self.variable(name);
            return variable.map_or_else(Vec::new, |variable| variable.texts.clone());
        }
        text(operand).into_iter().map(str::to_owned).collect()
    }

    /// The texts in a list that is written out.
    pub(super) fn elements(&self, list: &Expression) -> Vec<String> {
        let Expr::List(list) = &list.expr else {
            return Vec::new();
        };
        let elements = list.elements.iter();
        elements.flat_map(|element| self.texts(element)).collect()
    }

    fn word(&mut self, kind: Kind, word: &str) {
        let Kind::Text(words) = kind else {
            return;
        };
        let (what, known) = match words {
            Words::Role => ("role", Some(self.scope.roles)),
            Words::Upstream => ("upstream", Some(self.scope.upstreams)),
            Words::Tool => ("tool", Some(self.scope.tools)),
            Words::Free => return,
            Words::Classification | Words::Weekday | Words::Country | Words::Date | Words::Time => {
                ("word for what it is compared with", None)
            }
        };
        let Some(known) = known else {
            if !has_form(words, word) {
                let message = format!("`{word}` is no {what}");
                self.flaw(message, format!("use {}", form(words)));
            }
            return;
        };
        if !known.contains(word) {
            let known: Vec<&str> = known.iter().copied().collect();
            let known = known.join(", ");
            let remedy = if words == Words::Upstream {
                format!("use one of: {known}")
            } else {
                format!("list it under policy.{what}s, or use one of: {known}")
            };
            self.flaw(format!("`{word}` is no known {what}"), remedy);
        }
    }
}

/// Whether a value of one kind may stand where another is wanted.
fn fits(kind: Kind, wanted: Kind) -> bool {
    match (kind, wanted) {
        (Kind::Any, _) | (_, Kind::Any) => true,
        (Kind::Text(_), Kind::Text(_)) => true,
        (Kind::Texts(_) | Kind::List, Kind::Texts(_) | Kind::List) => true,
        (kind, wanted) => kind == wanted,
    }
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "anything",
        Kind::Null => "null",
        Kind::Bool => "a condition",
        Kind::Number => "a number",
        Kind::Text(_) => "a text",
        Kind::Texts(_) | Kind::List => "a list",
    }
}

/// The text of a literal.
fn text(expression: &Expression) -> Option<&str> {
    if let Expr::Literal(LiteralValue::String(text)) = &expression.expr {
        return Some(text.inner());
    }
    None
}
