//! `cambium admin blocks` and `tenants`: of the folder, or of the server that runs on it.

use cambium_model::tenant::TenantId;
use cambium_model::time::SECOND_NS;
use cambium_runtime::quantity::ByteSize;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::client::Client;
use super::super::{ServerArgs, print};
use super::Output;
use crate::Config;
use crate::inventory::{self, BlockFilter, BlockRow, TenantRow};
use crate::offline::{Absent, Offline};

#[derive(Args, Debug)]
pub(in crate::cli) struct BlocksArgs {
    /// Those with something of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Those of this level.
    #[arg(long)]
    level: Option<u8>,
    /// How to list them.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// `cambium admin tenants …`
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TenantsCommand {
    /// List those that there are and were.
    List {
        /// How to list them.
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Create one, so that it has a number before it first writes.
    Create {
        /// Its name.
        tenant: String,
    },
    /// Delete one: out of sight at once, out of the blocks as they are next written.
    Delete {
        /// Its name.
        tenant: String,
    },
    /// Say what there is and was of a name.
    Status {
        /// The name.
        tenant: String,
    },
}

pub(super) async fn blocks(config: &Config, args: &BlocksArgs) -> anyhow::Result<()> {
    let filter = BlockFilter { tenant: args.tenant.clone(), level: args.level };
    let rows: Vec<BlockRow> = match Offline::open(config, Absent::Refuse).await {
        Ok(offline) => inventory::blocks(&offline.catalogue, &filter).await?,
        Err(error) if Offline::is_in_use(&error) => {
            let tenant = filter.tenant.iter().map(|tenant| ("tenant".to_owned(), tenant.clone()));
            let level = filter.level.iter().map(|level| ("level".to_owned(), level.to_string()));
            let parameters: Vec<_> = tenant.chain(level).collect();
            read(&running(config).get("/api/v1/admin/blocks", &parameters)?)?
        }
        Err(error) => return Err(error),
    };
    let header = ["LEVEL", "TENANTS", "FIRST", "LAST", "SERIES", "PROFILES", "SAMPLES", "BYTES", "PATH"];
    let cells = |row: &BlockRow| {
        let tenants = match row.tenants.as_slice() {
            [a, b, c, rest @ ..] if !rest.is_empty() => format!("{a}, {b}, {c} and {} more", rest.len()),
            few => few.join(", "),
        };
        let numbers = [row.series, row.profiles, row.samples].map(|number| number.to_string());
        let [series, profiles, samples] = numbers;
        let (first, last) = (moment(row.first_ns), moment(row.last_ns));
        let bytes = ByteSize(row.bytes).to_string();
        vec![row.level.to_string(), tenants, first, last, series, profiles, samples, bytes, row.path.clone()]
    };
    show(&rows, args.output, &header, cells)
}

pub(super) async fn tenants(config: &Config, command: &TenantsCommand) -> anyhow::Result<()> {
    let path = |tenant: &str| -> anyhow::Result<String> {
        Ok(format!("/api/v1/admin/tenants/{}", TenantId::new(tenant)?))
    };
    let offline = match Offline::open(config, Absent::Refuse).await {
        Err(error) if Offline::is_in_use(&error) => None,
        other => Some(other?),
    };
    let client = running(config);
    let (tenant, answer) = match (command, &offline) {
        (TenantsCommand::List { output }, offline) => {
            let rows: Vec<TenantRow> = match offline {
                Some(offline) => inventory::tenants(&offline.catalogue, &offline.tenants).await?,
                None => read(&client.get("/api/v1/admin/tenants", &[])?)?,
            };
            return show(&rows, *output, &["NUMBER", "TENANT", "STATE", "BLOCKS", "BYTES"], |row| {
                let (number, blocks) = (row.number.to_string(), row.blocks.to_string());
                vec![number, row.name.clone(), row.state.clone(), blocks, ByteSize(row.bytes).to_string()]
            });
        }
        (TenantsCommand::Create { tenant }, None) => {
            (tenant, Some(client.post(&path(tenant)?, &[], &[])?.good()?))
        }
        (TenantsCommand::Delete { tenant }, None) => (tenant, Some(client.delete(&path(tenant)?)?)),
        (TenantsCommand::Status { tenant }, None) => (tenant, Some(client.get(&path(tenant)?, &[])?)),
        (TenantsCommand::Create { tenant }, Some(offline)) => {
            offline.tenants.resolve_or_create(&TenantId::new(tenant)?).await?;
            (tenant, None)
        }
        (TenantsCommand::Delete { tenant }, Some(offline)) => {
            offline.tenants.retire(&TenantId::new(tenant)?).await?;
            (tenant, None)
        }
        (TenantsCommand::Status { tenant }, Some(_)) => (tenant, None),
    };
    let states: Vec<String> = match (answer, &offline) {
        (Some(answer), _) => {
            let states: Vec<serde_json::Value> = read(&answer)?;
            states.iter().map(|state| format!("number {}, {}", state["number"], state["state"])).collect()
        }
        (None, Some(offline)) => {
            let rows = inventory::tenants(&offline.catalogue, &offline.tenants).await?;
            let rows = rows.into_iter().filter(|row| row.name == *tenant);
            rows.map(|row| format!("number {}, {}", row.number, row.state)).collect()
        }
        (None, None) => Vec::new(),
    };
    anyhow::ensure!(!states.is_empty(), "there is and was no tenant {tenant}");
    states.iter().for_each(|state| print(&format!("{tenant}: {}", state.replace('"', ""))));
    Ok(())
}

/// The server that runs on the folder, where operators ask it.
pub(super) fn running(config: &Config) -> Client {
    Client::new(&ServerArgs { server: format!("http://{}", config.internal.listen), tenant: None })
}

pub(super) fn read<T: DeserializeOwned>(answer: &[u8]) -> anyhow::Result<T> {
    let mut answer: serde_json::Value = serde_json::from_slice(answer)?;
    Ok(serde_json::from_value(answer["data"].take())?)
}

pub(super) fn show<T: Serialize>(
    rows: &[T],
    output: Output,
    header: &[&str],
    cells: impl Fn(&T) -> Vec<String>,
) -> anyhow::Result<()> {
    if output == Output::Json {
        print(&serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.iter().copied());
    for row in rows {
        table.add_row(cells(row));
    }
    print(&table.to_string());
    Ok(())
}

/// Unix seconds, as queries take them.
fn moment(time_ns: i64) -> String {
    time_ns.div_euclid(SECOND_NS).to_string()
}
