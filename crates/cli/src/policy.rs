//! `tidegate policy`: what the policy says, before it is published.
//!
//! Both commands ask the judge the gateway asks, with facts from a file or the command
//! line in place of a token and a connection.

mod coverage;
mod explain;
mod question;
mod test;

pub use explain::explain;
pub use test::test;

use tidegate_gateway::config::Problem;
use tidegate_gateway::policy::Rules;

use crate::Failure;
use crate::load::Loaded;

/// The configuration's rules; those of a configuration without problems compile.
fn rules(loaded: &Loaded) -> Result<Option<Rules>, Failure> {
    Rules::compile(&loaded.config).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(Problem::to_string).collect();
        Failure::Failed(problems.join("\n"))
    })
}
