//! `fleetctl list-machines`: the machines that are present.

use serde_json::{Map, Value};

use super::Failure;
use super::table::align;
use crate::api::Machine;
use crate::machine::identity::short;

/// Lists all machines that are present in the cluster.
///
/// A machine that has left, or is not heard of for its time to live, is not listed.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(super) struct ListMachines {
    /// Show whole machine ids
    #[arg(long, short = 'l')]
    full: bool,
    /// Print no header
    #[arg(long)]
    no_legend: bool,
    /// Columns to print: any of machine, ip, metadata
    #[arg(long, value_name = "FIELDS", default_value = "machine,ip,metadata")]
    fields: String,
    /// How to print: table, or json with whole values
    #[arg(long, short = 'o', value_enum, default_value_t = Output::Table, hide_possible_values = true)]
    output: Output,
    /// fleet ignores further arguments, so they are harmless in scripts
    #[arg(hide = true)]
    ignored: Vec<String>,
}

/// How a list is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Aligned columns.
    Table,
    /// One array.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Machine,
    Ip,
    Metadata,
}

impl Field {
    fn parse(name: &str) -> Result<Self, Failure> {
        match name {
            "machine" => Ok(Self::Machine),
            "ip" => Ok(Self::Ip),
            "metadata" => Ok(Self::Metadata),
            _ => Err(Failure::failed(format!("Invalid key in output format: {name:?}"))),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Ip => "ip",
            Self::Metadata => "metadata",
        }
    }
}

impl ListMachines {
    /// What can be refused before anybody is asked.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.parse_fields().map(drop)
    }

    /// What to print about these machines.
    pub(super) fn render(&self, machines: &[Machine]) -> Result<String, Failure> {
        let fields = self.parse_fields()?;
        Ok(match self.output {
            Output::Table => self.table(&fields, machines),
            Output::Json => json(&fields, machines),
        })
    }

    fn parse_fields(&self) -> Result<Vec<Field>, Failure> {
        if self.fields.is_empty() {
            return Err(Failure::failed("Must define output format".to_owned()));
        }
        self.fields.split(',').map(Field::parse).collect()
    }

    fn table(&self, fields: &[Field], machines: &[Machine]) -> String {
        let mut rows = Vec::with_capacity(machines.len() + 1);
        if !self.no_legend {
            rows.push(fields.iter().map(|field| field.name().to_uppercase()).collect());
        }
        for machine in machines {
            rows.push(fields.iter().map(|field| self.cell(*field, machine)).collect());
        }
        align(&rows)
    }

    fn cell(&self, field: Field, machine: &Machine) -> String {
        let text = match field {
            Field::Machine if self.full => machine.id.clone(),
            Field::Machine => short(&machine.id),
            Field::Ip => machine.primary_ip.clone(),
            Field::Metadata => {
                let pairs: Vec<String> = machine
                    .metadata
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                pairs.join(",")
            }
        };
        if text.is_empty() { "-".to_owned() } else { text }
    }
}

fn json(fields: &[Field], machines: &[Machine]) -> String {
    let value = |field: Field, machine: &Machine| match field {
        Field::Machine => Value::from(machine.id.as_str()),
        Field::Ip => Value::from(machine.primary_ip.as_str()),
        Field::Metadata => machine
            .metadata
            .iter()
            .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
            .collect(),
    };
    let objects: Vec<Map<String, Value>> = machines
        .iter()
        .map(|machine| {
            fields
                .iter()
                .map(|field| (field.name().to_owned(), value(*field, machine)))
                .collect()
        })
        .collect();
    let mut text = serde_json::to_string_pretty(&objects).expect("maps with text keys always serialize");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Only {
        #[command(flatten)]
        verb: ListMachines,
    }

    fn run(arguments: &[&str]) -> Result<String, Failure> {
        let arguments = std::iter::once("list-machines").chain(arguments.iter().copied());
        let machines: Vec<Machine> = [("1", "11"), ("2", "12"), ("3", "13")]
            .iter()
            .map(|(digit, ip)| Machine {
                id: digit.repeat(32),
                primary_ip: format!("127.0.0.{ip}"),
                metadata: [("zone", "z"), ("role", "node")]
                    .map(|(key, value)| (key.to_owned(), format!("{value}{digit}")))
                    .into(),
            })
            .collect();
        Only::try_parse_from(arguments).unwrap().verb.render(&machines)
    }

    /// Recorded from fleetctl 0.8.3 and 1.0.0 (`-l` from 0.8.3; 1.0.0 does not know it).
    #[test]
    fn tables_are_byte_for_byte_those_of_fleet() {
        let legend = "MACHINE\t\tIP\t\tMETADATA\n";
        let short = "11111111...\t127.0.0.11\trole=node1,zone=z1\n\
            22222222...\t127.0.0.12\trole=node2,zone=z2\n\
            33333333...\t127.0.0.13\trole=node3,zone=z3\n";
        let full = "MACHINE\t\t\t\t\tIP\t\tMETADATA\n\
            11111111111111111111111111111111\t127.0.0.11\trole=node1,zone=z1\n\
            22222222222222222222222222222222\t127.0.0.12\trole=node2,zone=z2\n\
            33333333333333333333333333333333\t127.0.0.13\trole=node3,zone=z3\n";
        let two =
            "MACHINE\t\tIP\n11111111...\t127.0.0.11\n22222222...\t127.0.0.12\n33333333...\t127.0.0.13\n";
        let turned = "role=node1,zone=z1\t11111111...\nrole=node2,zone=z2\t22222222...\nrole=node3,zone=z3\t33333333...\n";
        assert_eq!(run(&[]).unwrap(), format!("{legend}{short}"));
        assert_eq!(run(&["--no-legend"]).unwrap(), short);
        assert_eq!(run(&["--full"]).unwrap(), full);
        assert_eq!(run(&["-l"]).unwrap(), full);
        assert_eq!(run(&["--fields=machine,ip"]).unwrap(), two);
        assert_eq!(
            run(&["--fields=metadata,machine", "--no-legend"]).unwrap(),
            turned
        );
        assert_eq!(run(&["extra"]).unwrap(), format!("{legend}{short}"));
    }

    /// Recorded from fleetctl 0.8.3 against an empty registry.
    #[test]
    fn no_machines_are_a_legend_with_nothing_below() {
        let verb = Only::try_parse_from(["list-machines"]).unwrap().verb;
        assert_eq!(verb.render(&[]).unwrap(), "MACHINE\tIP\tMETADATA\n");
        let verb = Only::try_parse_from(["list-machines", "--output", "json"])
            .unwrap()
            .verb;
        assert_eq!(verb.render(&[]).unwrap(), "[]\n");
    }

    #[test]
    fn what_a_machine_does_not_say_is_a_dash() {
        let verb = Only::try_parse_from(["list-machines", "--no-legend"])
            .unwrap()
            .verb;
        let machine = Machine {
            id: "abc".to_owned(),
            ..Machine::default()
        };
        assert_eq!(verb.render(&[machine]).unwrap(), "abc...\t-\t-\n");
    }

    #[test]
    fn bad_fields_fail_as_in_fleet() {
        for (fields, message) in [
            ("--fields=bogus", "Invalid key in output format: \"bogus\""),
            ("--fields=", "Must define output format"),
        ] {
            let failure = run(&[fields]).unwrap_err();
            assert_eq!((failure.code, failure.message.as_str()), (1, message));
        }
    }

    #[test]
    fn json_has_whole_values_of_the_asked_fields() {
        let printed: Value = serde_json::from_str(&run(&["--output", "json"]).unwrap()).unwrap();
        assert_eq!(printed.as_array().unwrap().len(), 3);
        let first = serde_json::json!({
            "machine": "1".repeat(32), "ip": "127.0.0.11", "metadata": {"role": "node1", "zone": "z1"}
        });
        assert_eq!(printed[0], first);
        let printed: Value = serde_json::from_str(&run(&["-o=json", "--fields=ip"]).unwrap()).unwrap();
        assert_eq!(printed[2], serde_json::json!({"ip": "127.0.0.13"}));
    }
}
