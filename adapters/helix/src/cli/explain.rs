//! `helix explain`

use clap::Args;
use helix_protocol::{Code, Failure};
use serde::Serialize;

use super::Context;
use super::style::Table;

/// Say what a failure code means and what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  helix explain worker_lost
  helix explain                  every code with its exit code")]
pub(super) struct Explain {
    /// The code, as a failure shows it in brackets
    code: Option<String>,
}

#[derive(Serialize)]
struct Page {
    code: &'static str,
    exit_code: u8,
    page: &'static str,
}

impl Page {
    fn of(code: Code) -> Self {
        Self { code: code.as_str(), exit_code: code.exit_code(), page: code.page() }
    }
}

impl Explain {
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        let style = context.style;
        match self.code {
            Some(text) => {
                let code: Code = text.trim_start_matches("error[").trim_end_matches([']', ':']).parse()?;
                context.print(&Page::of(code), |page| {
                    format!("{} (exit code {})\n\n{}\n", style.bold(page.code), page.exit_code, page.page)
                })
            }
            None => {
                let pages: Vec<Page> = Code::ALL.iter().copied().map(Page::of).collect();
                context.print(&pages, |pages| {
                    let mut table = Table::new(style, &["CODE", "EXIT", "MEANING"]);
                    for page in pages {
                        let first = page.page.split(". ").next().unwrap_or(page.page).trim_end_matches('.');
                        table.row([page.code.to_owned(), page.exit_code.to_string(), first.to_owned()]);
                    }
                    table.render()
                })
            }
        }
    }
}
