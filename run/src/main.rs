//! Host tool of Portico; started by the scripts in `run/`.

fn main() -> std::process::ExitCode {
    run::cli::main()
}
