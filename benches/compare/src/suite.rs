//! The workloads, each in a process of its own.

mod cold;
mod core;
mod feel;
mod growth;
mod keys;
mod opening;
mod reads;
mod ycsb;

use crate::engine::{Engine, Outcome};
use crate::worker::{Order, warm_up};

/// What a process does: a suite, or a step of one that needs a process of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Task {
    Core,
    Ycsb,
    Opening,
    Feel,
    Growth,
    Keys,
    Cold,
    /// Loads and closes.
    Load,
    /// Loads, then dies.
    LoadAndDie,
    /// Opens and reads everything.
    Open,
    /// Counts what a death left.
    Survivors,
    /// Reads a part with nothing in the page cache.
    ReadCold,
}

/// The suites, in the order of the table.
pub const SUITES: [(Task, &str); 7] = [
    (Task::Core, "redb's comparison"),
    (Task::Ycsb, "YCSB"),
    (Task::Opening, "Opening and memory"),
    (Task::Feel, "What users feel"),
    (Task::Growth, "Growth"),
    (Task::Keys, "Keys as people have them"),
    (Task::Cold, "Cold page cache"),
];

impl Task {
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Ycsb => "ycsb",
            Self::Opening => "opening",
            Self::Feel => "feel",
            Self::Growth => "growth",
            Self::Keys => "keys",
            Self::Cold => "cold",
            Self::Load => "load",
            Self::LoadAndDie => "load-and-die",
            Self::Open => "open",
            Self::Survivors => "survivors",
            Self::ReadCold => "read-cold",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        let steps = [
            Self::Load,
            Self::LoadAndDie,
            Self::Open,
            Self::Survivors,
            Self::ReadCold,
        ];
        let suites = SUITES.iter().map(|(task, _)| *task);
        suites.chain(steps).find(|task| task.name() == name)
    }
}

pub fn run<E: Engine>(order: &Order) -> Outcome<()> {
    match order.task {
        Task::Core | Task::Ycsb | Task::Feel | Task::Growth | Task::Keys => {
            warm_up::<E>(&order.folder)?;
        }
        _ => {}
    }
    match order.task {
        Task::Core => core::run::<E>(order),
        Task::Ycsb => ycsb::run::<E>(order),
        Task::Opening => opening::run::<E>(order),
        Task::Feel => feel::run::<E>(order),
        Task::Growth => growth::run::<E>(order),
        Task::Keys => keys::run::<E>(order),
        Task::Cold => cold::run(order),
        Task::Load => opening::load::<E>(order),
        Task::LoadAndDie => opening::load_and_die::<E>(order),
        Task::Open => opening::open::<E>(order),
        Task::Survivors => opening::survivors::<E>(order),
        Task::ReadCold => cold::read::<E>(order),
    }
}
