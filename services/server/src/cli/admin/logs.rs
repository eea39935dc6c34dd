//! `cambium admin logs`: what may hold profiles that are in no block, and what of it is given up. Asks a running server.

use cambium_model::block::LogId;
use clap::Subcommand;

use super::super::print;
use super::Output;
use super::list::{read, running, show};
use crate::Config;
use crate::inventory::LogRow;

/// `cambium admin logs …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LogsCommand {
    /// List those that are not sealed, and who holds them.
    List {
        /// How to list them.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Give up whatever a log holds that is in no block: its disk is lost.
    Forget {
        /// The log, as the list names it.
        log: String,
    },
}

pub(super) fn run(config: &Config, command: &LogsCommand) -> anyhow::Result<()> {
    let client = running(config);
    match command {
        LogsCommand::List { output } => {
            let rows: Vec<LogRow> = read(&client.get("/api/v1/admin/logs", &[])?)?;
            show(&rows, *output, &["LOG", "HOLDER", "FROM OFFSET"], |row| {
                vec![row.log.clone(), row.holder.clone(), row.from_offset.to_string()]
            })
        }
        LogsCommand::Forget { log } => {
            let id: Result<LogId, ()> = log.parse();
            anyhow::ensure!(id.is_ok(), "{log:?} is not a log: see cambium admin logs list");
            client.delete(&format!("/api/v1/admin/logs/{log}"))?;
            print(&format!("{log}: given up from the first record on that is in no block"));
            Ok(())
        }
    }
}
