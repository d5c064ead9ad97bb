//! The methods a gateway must understand. Every other method is unknown here and answered so.

use crate::version::Era;

macro_rules! methods {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $eras:expr;)*) => {
        /// A method of either era.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Method {
            $($(#[$doc])* $variant,)*
        }

        impl Method {
            /// Every method.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The method of this name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name used on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            const fn eras(self) -> Eras {
                match self {
                    $(Self::$variant => $eras,)*
                }
            }
        }
    };
}

#[derive(Clone, Copy)]
enum Eras {
    Legacy,
    Modern,
    Both,
}

methods! {
    /// What the server is and can do.
    ServerDiscover = "server/discover" in Eras::Modern;
    /// The handshake that 2026-07-28 removed.
    Initialize = "initialize" in Eras::Legacy;
    /// Liveness.
    Ping = "ping" in Eras::Legacy;
    /// Lists tools.
    ToolsList = "tools/list" in Eras::Both;
    /// Calls a tool.
    ToolsCall = "tools/call" in Eras::Both;
    /// Lists resources.
    ResourcesList = "resources/list" in Eras::Both;
    /// Lists resource templates.
    ResourceTemplatesList = "resources/templates/list" in Eras::Both;
    /// Reads a resource.
    ResourcesRead = "resources/read" in Eras::Both;
    /// Watches a resource.
    ResourcesSubscribe = "resources/subscribe" in Eras::Legacy;
    /// Stops watching a resource.
    ResourcesUnsubscribe = "resources/unsubscribe" in Eras::Legacy;
    /// Lists prompts.
    PromptsList = "prompts/list" in Eras::Both;
    /// Gets a prompt.
    PromptsGet = "prompts/get" in Eras::Both;
    /// Completes an argument.
    CompletionComplete = "completion/complete" in Eras::Both;
    /// Sets the session's log level.
    LoggingSetLevel = "logging/setLevel" in Eras::Legacy;
    /// Listens for changes.
    SubscriptionsListen = "subscriptions/listen" in Eras::Modern;
    /// Gets a task.
    TasksGet = "tasks/get" in Eras::Both;
    /// Answers a task's input requests.
    TasksUpdate = "tasks/update" in Eras::Modern;
    /// Cancels a task.
    TasksCancel = "tasks/cancel" in Eras::Both;
    /// Waits for a legacy task's result.
    TasksResult = "tasks/result" in Eras::Legacy;
    /// Lists legacy tasks.
    TasksList = "tasks/list" in Eras::Legacy;
}

impl Method {
    /// Whether this era has the method at all.
    #[must_use]
    pub const fn served_in(self, era: Era) -> bool {
        matches!(
            (self.eras(), era),
            (Eras::Both, _) | (Eras::Legacy, Era::Legacy) | (Eras::Modern, Era::Modern)
        )
    }

    /// Whether the method lists catalog items page by page.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(
            self,
            Self::ToolsList | Self::ResourcesList | Self::ResourceTemplatesList | Self::PromptsList
        )
    }

    /// Whether a complete modern result must carry `ttlMs` and `cacheScope`.
    #[must_use]
    pub const fn is_cacheable(self) -> bool {
        self.is_list() || matches!(self, Self::ServerDiscover | Self::ResourcesRead)
    }

    /// Whether the result may be `input_required`.
    #[must_use]
    pub const fn may_require_input(self) -> bool {
        matches!(
            self,
            Self::ToolsCall | Self::PromptsGet | Self::ResourcesRead
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_parses_back_from_its_name() {
        for method in Method::ALL {
            assert_eq!(Method::parse(method.as_str()), Some(*method));
        }
        for unknown in ["", "tools/List", "tools/list ", "sampling/createMessage"] {
            assert_eq!(Method::parse(unknown), None);
        }
    }

    #[test]
    fn methods_removed_in_2026_07_28_are_not_served_to_modern_clients() {
        for removed in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/result",
            "tasks/list",
        ] {
            let method = Method::parse(removed).unwrap();
            assert!(!method.served_in(Era::Modern), "{removed}");
            assert!(method.served_in(Era::Legacy), "{removed}");
        }
    }

    #[test]
    fn methods_new_in_2026_07_28_are_not_served_to_legacy_clients() {
        for method in Method::ALL.iter().filter(|m| !m.served_in(Era::Legacy)) {
            assert!(method.served_in(Era::Modern));
            assert!(matches!(
                method,
                Method::ServerDiscover | Method::SubscriptionsListen | Method::TasksUpdate
            ));
        }
    }

    #[test]
    fn six_methods_carry_cache_hints() {
        let cacheable: Vec<_> = Method::ALL
            .iter()
            .filter(|method| method.is_cacheable())
            .map(|method| method.as_str())
            .collect();
        assert_eq!(
            cacheable,
            [
                "server/discover",
                "tools/list",
                "resources/list",
                "resources/templates/list",
                "resources/read",
                "prompts/list",
            ]
        );
    }
}
