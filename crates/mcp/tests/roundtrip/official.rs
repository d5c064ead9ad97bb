//! The official schemas and examples.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, OnceLock};

use serde_json::{Value, json};
use tidegate_mcp::version::ProtocolVersion;

use super::crossing::Crossing;

pub const MODERN: ProtocolVersion = ProtocolVersion::V2026_07_28;
pub const LEGACY: [ProtocolVersion; 4] = [
    ProtocolVersion::V2024_11_05,
    ProtocolVersion::V2025_03_26,
    ProtocolVersion::V2025_06_18,
    ProtocolVersion::V2025_11_25,
];

/// The official examples: type, then name, then value.
pub fn examples() -> &'static BTreeMap<String, BTreeMap<String, Value>> {
    static EXAMPLES: LazyLock<BTreeMap<String, BTreeMap<String, Value>>> = LazyLock::new(|| {
        let text = include_str!("../fixtures/schema/mcp-2026-07-28.examples.json");
        serde_json::from_str(text).unwrap()
    });
    &EXAMPLES
}

/// Judges values by one revision's official schema.
pub struct Judge {
    version: ProtocolVersion,
    document: Value,
    root: &'static str,
    validators: Mutex<BTreeMap<String, &'static jsonschema::Validator>>,
}

impl Judge {
    pub fn of(version: ProtocolVersion) -> &'static Self {
        static JUDGES: [OnceLock<Judge>; 5] = [const { OnceLock::new() }; 5];
        let index = ProtocolVersion::ALL
            .iter()
            .position(|known| *known == version);
        JUDGES[index.unwrap()].get_or_init(|| Self::new(version))
    }

    fn new(version: ProtocolVersion) -> Self {
        let text = match version {
            ProtocolVersion::V2024_11_05 => {
                include_str!("../fixtures/schema/mcp-2024-11-05.schema.json")
            }
            ProtocolVersion::V2025_03_26 => {
                include_str!("../fixtures/schema/mcp-2025-03-26.schema.json")
            }
            ProtocolVersion::V2025_06_18 => {
                include_str!("../fixtures/schema/mcp-2025-06-18.schema.json")
            }
            ProtocolVersion::V2025_11_25 => {
                include_str!("../fixtures/schema/mcp-2025-11-25.schema.json")
            }
            ProtocolVersion::V2026_07_28 => {
                include_str!("../fixtures/schema/mcp-2026-07-28.schema.json")
            }
        };
        let document: Value = serde_json::from_str(text).unwrap();
        let root = if document.get("$defs").is_some() {
            "$defs"
        } else {
            "definitions"
        };
        Self {
            version,
            document,
            root,
            validators: Mutex::default(),
        }
    }

    /// The definition of this name, if the revision has one.
    pub fn definition(&self, name: &str) -> Option<&Value> {
        self.document[self.root].get(name)
    }

    /// Whether the revision has what crosses.
    pub fn knows(&self, crossing: &Crossing) -> bool {
        self.definition(&crossing.definition(self.version))
            .is_some()
    }

    /// What the definition of what crosses has against a value.
    pub fn objections(&self, crossing: &Crossing, value: &Value) -> Option<String> {
        let name = crossing.definition(self.version);
        let message = crossing.message(value);
        let errors: Vec<String> = self
            .validator(&name)
            .iter_errors(&message)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        let version = self.version;
        (!errors.is_empty()).then(|| format!("{version} {name}: {errors:#?}\n{message}"))
    }

    fn validator(&self, name: &str) -> &'static jsonschema::Validator {
        let mut validators = self.validators.lock().unwrap();
        validators.entry(name.to_owned()).or_insert_with(|| {
            assert!(self.definition(name).is_some(), "no definition {name}");
            let mut schema = self.document.clone();
            schema["$ref"] = json!(format!("#/{}/{name}", self.root));
            Box::leak(Box::new(jsonschema::validator_for(&schema).unwrap()))
        })
    }
}
