//! Instances of a schema's types: with required members alone, with every member and an
//! unknown one, and with each member in each of its forms.

use serde_json::{Map, Value, json};

use super::official::Judge;

/// Instances of the type of this name; the fullest is the first.
pub fn instances(judge: &Judge, name: &str) -> Vec<Value> {
    let schema = json!({ "$ref": format!("#/x/{name}") });
    Generator {
        judge,
        trail: Vec::new(),
    }
    .of(&schema)
}

struct Generator<'a> {
    judge: &'a Judge,
    /// The types being made, outermost first.
    trail: Vec<String>,
}

impl Generator<'_> {
    fn of(&mut self, schema: &Value) -> Vec<Value> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.of_type(reference);
        }
        if let Some(value) = schema.get("const") {
            return vec![value.clone()];
        }
        if let Some(values) = schema["enum"].as_array() {
            return values.clone();
        }
        if let Some(branches) = schema["anyOf"].as_array().or(schema["oneOf"].as_array()) {
            return branches.iter().flat_map(|branch| self.of(branch)).collect();
        }
        if let Some(parts) = schema["allOf"].as_array() {
            return self.of_all(parts);
        }
        match &schema["type"] {
            Value::String(name) => self.of_kind(name, schema),
            Value::Array(names) => names
                .iter()
                .flat_map(|name| self.of_kind(name.as_str().unwrap(), schema))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec![
                json!({ "n": 1 }),
                json!([1, "two"]),
                json!("text"),
                json!(3),
            ],
        }
    }

    fn of_type(&mut self, reference: &str) -> Vec<Value> {
        let name = reference.rsplit('/').next().unwrap().to_owned();
        let schema = self.judge.definition(&name).unwrap().clone();
        if self.trail.contains(&name) {
            return vec![self.least(&schema)];
        }
        self.trail.push(name);
        let made = self.of(&schema);
        self.trail.pop();
        made
    }

    /// The end of a recursion: nothing but what is required, and no branches.
    fn least(&mut self, schema: &Value) -> Value {
        let mut bare = schema.clone();
        if let Some(bare) = bare.as_object_mut() {
            bare.retain(|key, _| key != "additionalProperties");
            if let Some(Value::Array(branches)) = bare.get_mut("anyOf") {
                branches.truncate(1);
            }
            let required = bare.get("required").cloned().unwrap_or_default();
            if let Some(Value::Object(properties)) = bare.get_mut("properties") {
                let required: Vec<&str> = required
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect();
                properties.retain(|name, _| required.contains(&name.as_str()));
            }
        }
        self.of(&bare).swap_remove(0)
    }

    /// One instance that is all of these at once.
    fn of_all(&mut self, parts: &[Value]) -> Vec<Value> {
        let mut whole = Map::new();
        for part in parts {
            if let Some(Value::Object(members)) = self.of(part).into_iter().next() {
                whole.extend(members);
            }
        }
        vec![Value::Object(whole)]
    }

    fn of_kind(&mut self, kind: &str, schema: &Value) -> Vec<Value> {
        match kind {
            "string" => vec![json!(match schema["format"].as_str() {
                Some("uri") => "https://a.example/x",
                Some("uri-template") => "https://a.example/{x}",
                Some("byte") => "QQ==",
                _ => "text",
            })],
            "integer" => vec![json!(schema["minimum"].as_i64().unwrap_or(0).max(1))],
            "number" => vec![json!(1), json!(0.5)],
            "boolean" => vec![json!(true), json!(false)],
            "null" => vec![Value::Null],
            "array" => {
                let items = self.of(&schema["items"]);
                let mut several = vec![items[0].clone()];
                several.extend(items.last().cloned());
                let one = items.into_iter().map(|item| json!([item]));
                [json!(several), json!([])].into_iter().chain(one).collect()
            }
            "object" => self.of_object(schema),
            other => unreachable!("no schema here has a {other}"),
        }
    }

    fn of_object(&mut self, schema: &Value) -> Vec<Value> {
        let forms: Vec<(String, Vec<Value>)> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, member)| (name.clone(), self.of(member)))
            .collect();
        let is_required = |name: &str| {
            schema["required"]
                .as_array()
                .is_some_and(|required| required.iter().any(|known| known == name))
        };
        let mut full = Map::new();
        let mut bare = Map::new();
        for (name, forms) in &forms {
            full.insert(name.clone(), forms[0].clone());
            if is_required(name) {
                bare.insert(name.clone(), forms[0].clone());
            }
        }
        let mut made = Vec::new();
        let other = &schema["additionalProperties"];
        if other.as_object().is_some_and(|other| !other.is_empty()) {
            for form in self.of(other) {
                let mut one = bare.clone();
                one.insert("key".to_owned(), form.clone());
                full.entry("key").or_insert(form);
                made.push(Value::Object(one));
            }
        } else if *other != json!(false) {
            full.insert("x-unknown".to_owned(), json!({ "n": 1 }));
        }
        for (name, forms) in forms {
            for form in forms {
                let mut one = bare.clone();
                one.insert(name.clone(), form);
                made.push(Value::Object(one));
            }
        }
        let first = [Value::Object(full), Value::Object(bare)];
        first.into_iter().chain(made).collect()
    }
}
