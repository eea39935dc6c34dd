//! The command line: `cambium` runs the server, subcommands talk to one.
//!
//! Human output is a table or text, `--output json` is for scripts. Every setting of the configuration is a flag of
//! the server; the list is made from the settings themselves.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, ArgMatches, Args, FromArgMatches, Subcommand};

use crate::config::{self, Config, LogFormat};
use crate::crash;
use crate::self_profile::resolver;
use crate::wiring::Running;

mod admin;
mod client;
mod push;
mod query;

/// Stack of each thread; only what is touched takes memory. SQL's planner recurses as deep as a statement's operators
/// nest, of which the querier lets in some hundreds.
const STACK_BYTES: usize = 16 << 20;

/// What `cambium` can do besides serving.
#[derive(Debug, Subcommand)]
enum Command {
    /// Send pprof files to a server.
    Push(push::PushArgs),
    /// Ask a server: top functions, a flame graph, a pprof or values over time.
    #[command(subcommand)]
    Query(query::QueryCommand),
    /// List label names, or the values of one.
    Labels(query::LabelsArgs),
    /// List profile types.
    Types(query::TypesArgs),
    /// Run one SELECT over samples, profiles, series and stacks.
    Sql(query::SqlArgs),
    /// Look after a data folder.
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// Look at the configuration without running anything.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say whether file, environment and flags make a valid configuration.
    Check,
    /// Print the configuration that results from file, environment and flags.
    Show,
}

/// Where the server is and as whom to ask.
#[derive(Args, Clone, Debug)]
struct ServerArgs {
    /// The server's address.
    #[arg(long, env = "CAMBIUM_SERVER", default_value = "http://127.0.0.1:4040")]
    server: String,
    /// Tenant, sent as X-Scope-OrgID.
    #[arg(long, env = "CAMBIUM_TENANT")]
    tenant: Option<String>,
}

/// Runs the command line of the process.
pub fn main() -> ExitCode {
    // Before everything else: this process is one of many that live for a moment.
    if std::env::args_os().skip(1).eq([resolver::SUBCOMMAND]) {
        return resolver::main();
    }
    let matches = command().get_matches();
    match run(&matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the command line's own error output")]
fn print_error(error: &anyhow::Error) {
    eprintln!("cambium: {error:#}");
}

/// Output of a command.
#[expect(clippy::print_stdout, reason = "the command line's own output")]
fn print(text: &str) {
    println!("{text}");
}

fn command() -> clap::Command {
    let mut command = clap::Command::new("cambium")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Continuous profiling for many tenants. Without a subcommand: run the server.")
        .arg(
            Arg::new("config")
                .long("config")
                .env("CAMBIUM_CONFIG")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true)
                .help("YAML file; flags and environment variables win over it"),
        );
    for setting in config::settings() {
        let default = match &setting.default {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let switch = setting.default.is_boolean();
        let mut arg = Arg::new(setting.key.clone())
            .long(setting.flag())
            .value_name("VALUE")
            .help(format!("[default: {default}] [env: {}]", setting.variable()))
            .help_heading("Settings");
        if switch {
            arg = arg.num_args(0..=1).default_missing_value("true").require_equals(true);
        }
        command = command.arg(arg);
    }
    Command::augment_subcommands(command)
}

fn run(matches: &ArgMatches) -> anyhow::Result<()> {
    if matches.subcommand_name().is_none() {
        return serve(load(matches)?);
    }
    match Command::from_arg_matches(matches)? {
        Command::Push(args) => push::run(&args),
        Command::Query(command) => query::run(&command),
        Command::Labels(args) => query::labels(&args),
        Command::Types(args) => query::types(&args),
        Command::Sql(args) => query::sql(&args),
        Command::Admin(command) => admin::run(&load(matches)?, &command),
        Command::Config(ConfigCommand::Check) => {
            load(matches)?.overrides()?;
            print("the configuration is valid");
            Ok(())
        }
        Command::Config(ConfigCommand::Show) => {
            print(serde_norway::to_string(&load(matches)?)?.trim_end());
            Ok(())
        }
    }
}

fn load(matches: &ArgMatches) -> anyhow::Result<Config> {
    let flags: Vec<(String, String)> = config::settings()
        .into_iter()
        .filter_map(|setting| Some((setting.key.clone(), matches.get_one::<String>(&setting.key)?.clone())))
        .collect();
    let file = matches.get_one::<PathBuf>("config").map(PathBuf::as_path);
    Ok(config::load(file, &std::env::vars().collect(), &flags)?)
}

fn serve(config: Config) -> anyhow::Result<()> {
    crash::arm().map_err(anyhow::Error::msg)?;
    start_logs(&config)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_stack_size(STACK_BYTES).build()?;
    runtime.block_on(async {
        let running = Running::start(config).await?;
        tokio::select! {
            signal = stop_signal() => tracing::info!(signal = signal?, "stopping"),
            () = running.stop_requested() => tracing::info!("stopping, as asked"),
        }
        running.stop().await
    })
}

fn start_logs(config: &Config) -> anyhow::Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&config.log.filter)
        .with_context(|| format!("log.filter: {:?}", config.log.filter))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log.format {
        LogFormat::Text => logs.init(),
        LogFormat::Json => logs.json().init(),
    }
    Ok(())
}

async fn stop_signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    })
}
