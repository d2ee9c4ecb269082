//! A prompt in, text out, piece by piece.

use super::answer::{StopStrings, TextStream};
use super::generation::{Finish, Generation};
use super::sampling::Sampling;
use super::template::{ChatTemplate, Message};
use super::text::Tokenizer;
use crate::session::{Placed, Session, Value};
use crate::tensor::Tensor;
use crate::{Error, Result};
use nt_bundle::{Bundle, Entry, Kind, Manifest, Variant};
use nt_device::{DType, TensorSpec};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// Ids, and places of a sequence, that a declaration may speak of.
const LARGEST: usize = 1 << 28;

/// A program that continues a prompt, as `Generate` of namedtensor/tasks/_generate.py declares it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generate {
    /// The most positions of prompt and answer together.
    pub context: usize,
    /// The number of ids.
    pub vocab: usize,
    /// The ids at which an answer ends.
    pub eos: Vec<u32>,
    /// Path in the archive; without one, prompts are ids.
    pub tokenizer: Option<String>,
    pub template: Option<ChatTemplate>,
    /// What applies where the caller sets nothing else.
    pub sampling: Sampling,
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub enum Prompt {
    Text(String),
    Messages(Vec<Message>),
    Ids(Vec<i64>),
}

/// A prompt that was read: its ids, and the tokenizer that the answer is read with.
#[derive(Debug)]
pub struct Tokens {
    pub ids: Vec<u32>,
    tokenizer: Option<Tokenizer>,
}

/// How a prompt is continued.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest answer, at least 1; None for as long as the context allows.
    pub max_tokens: Option<usize>,
    /// One seed gives one answer.
    pub seed: u32,
    /// Strings at which the answer ends, without them.
    pub stop: Vec<String>,
    pub sampling: Sampling,
}

/// State of a program between two calls, by name.
type State = BTreeMap<String, Value>;

impl Generate {
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<()> {
        let refuse = |problem: String| Err(Error::Archive(format!("the task: {problem}")));
        if !(1..=LARGEST).contains(&self.context) || !(1..=LARGEST).contains(&self.vocab) {
            return refuse(format!("a context of {} and {} ids", self.context, self.vocab));
        }
        if let Some(id) = self.eos.iter().find(|&&id| id as usize >= self.vocab) {
            return refuse(format!("answers end at {id}; ids go from 0 to {}", self.vocab - 1));
        }
        if let Some((name, problem)) = self.sampling.problem() {
            return refuse(format!("{name} {problem}"));
        }
        for entry in ["prefill", "score"] {
            for variant in &entry_of(manifest, entry)?.variants {
                size(variant)?;
            }
        }
        entry_of(manifest, "decode").and(entry_of(manifest, "sample")).map(|_| ())
    }

    /// The prompt's ids: of a text with the tokenizer's special tokens, of messages as the template puts them.
    ///
    /// # Errors
    /// [`Error::Input`] where it has no tokens, ids out of range, or more tokens than the context holds beside one of
    /// answer; what the archive refuses.
    pub fn read(&self, bundle: &Bundle, prompt: &Prompt) -> Result<Tokens> {
        let lacks = |what: &str, rest: &str| {
            Error::Input(format!("the checkpoint has no {what}, so the prompt must be {rest}"))
        };
        if self.tokenizer.is_none() && !matches!(prompt, Prompt::Ids(_)) {
            return Err(lacks("tokenizer.json", "ids"));
        }
        let rendered = match prompt {
            Prompt::Messages(messages) => {
                let template = self.template.as_ref().ok_or_else(|| lacks("chat template", "a text or ids"))?;
                Some(template.render(messages)?)
            }
            _ => None,
        };
        let tokenizer = self.tokenizer.as_ref().map(|path| Tokenizer::read(bundle, path, None)).transpose()?;
        let ids: Vec<i64> = match (prompt, &tokenizer) {
            (Prompt::Ids(ids), _) => ids.clone(),
            (Prompt::Text(text), Some(tokenizer)) => {
                tokenizer.encode(text, true)?.ids.into_iter().map(Into::into).collect()
            }
            // What the template wrote already has the special tokens.
            (_, Some(tokenizer)) => {
                tokenizer.encode(&rendered.unwrap_or_default(), false)?.ids.into_iter().map(Into::into).collect()
            }
            (_, None) => Vec::new(),
        };
        Ok(Tokens { ids: self.checked(&ids)?, tokenizer })
    }

    fn checked(&self, ids: &[i64]) -> Result<Vec<u32>> {
        let refuse = |problem: String| Err(Error::Input(problem));
        if ids.is_empty() {
            return refuse("the prompt is empty: there is no token to continue from".into());
        }
        let mut checked = Vec::with_capacity(ids.len());
        for (place, &id) in ids.iter().enumerate() {
            match u32::try_from(id) {
                Ok(id) if (id as usize) < self.vocab => checked.push(id),
                _ => {
                    let last = self.vocab - 1;
                    return refuse(format!("token {place} of the prompt is {id}; ids go from 0 to {last}"));
                }
            }
        }
        if ids.len() >= self.context {
            return refuse(format!(
                "the prompt has {} tokens, and the context of {} has room for {} and an answer; shorten it, or build the \
                 program with a larger context",
                ids.len(),
                self.context,
                self.context - 1
            ));
        }
        Ok(checked)
    }

    /// Prepares what continuing a prompt of so many tokens takes, for an answer of at most `max_tokens`, and no more.
    ///
    /// # Errors
    /// What the archive or the device refuses.
    pub fn prepare(&self, session: &mut Session<'_>, tokens: &Tokens, max_tokens: usize) -> Result<()> {
        let manifest = session.bundle().manifest();
        let prefill = entry_of(manifest, "prefill")?;
        let largest = largest(prefill)?;
        let mut pieces: Vec<usize> = tokens.ids.chunks(largest).map(<[u32]>::len).collect();
        pieces.dedup();
        for piece in pieces {
            session.prepare(fitting(prefill, piece)?)?;
        }
        session.prepare(only(manifest, "sample")?)?;
        if max_tokens > 1 { session.prepare(only(manifest, "decode")?) } else { Ok(()) }
    }

    /// Continues a prompt, and hands each piece of text to `on_text` as it becomes known. A piece ends between characters.
    ///
    /// # Errors
    /// [`Error::Input`] for stop strings that are empty, or need a tokenizer; what the archive or the device refuses,
    /// or `on_text` does.
    pub fn run(
        &self,
        session: &mut Session<'_>,
        tokens: &Tokens,
        settings: &Settings,
        on_text: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Generation> {
        settings.check(tokens)?;
        let began = Instant::now();
        let room = self.context - tokens.ids.len();
        let most = settings.max_tokens.map_or(room, |most| most.min(room));
        let ended = if most == room && settings.max_tokens != Some(room) { Finish::Context } else { Finish::Length };
        let mut found = Generation {
            ids: Vec::new(),
            text: tokens.tokenizer.as_ref().map(|_| String::new()),
            finish_reason: ended,
            prompt_ids: tokens.ids.clone(),
            seed: settings.seed,
            sampling: settings.sampling,
            first_token_seconds: 0.0,
            seconds: 0.0,
        };
        let mut show = |text: String, all: &mut Option<String>| {
            if let (false, Some(all)) = (text.is_empty(), all) {
                *all += &text;
                on_text(&text)?;
            }
            Ok::<(), Error>(())
        };
        let mut stream = tokens.tokenizer.as_ref().map(TextStream::new);
        let mut stops = StopStrings::new(&settings.stop);
        let mut program = Running::begin(self, session, &tokens.ids)?;
        for step in 0..most {
            let id = program.sample(settings, step)?;
            if step == 0 {
                found.first_token_seconds = began.elapsed().as_secs_f64();
            }
            found.ids.push(id);
            if self.eos.contains(&id) {
                found.finish_reason = Finish::Eos;
                break;
            }
            if let Some(stream) = &mut stream {
                show(stops.push(&stream.push(id)?), &mut found.text)?;
                if stops.found() {
                    found.finish_reason = Finish::Stop;
                    break;
                }
            }
            if step + 1 < most {
                program.decode(tokens.ids.len() + step)?;
            }
        }
        if let (Some(stream), false) = (&mut stream, stops.found()) {
            // The last id may have begun a character that no other completes, and that text a stop string.
            show(stops.push(&stream.finish()?), &mut found.text)?;
            show(stops.finish(), &mut found.text)?;
            if stops.found() && found.finish_reason != Finish::Eos {
                found.finish_reason = Finish::Stop;
            }
        }
        found.seconds = began.elapsed().as_secs_f64();
        Ok(found)
    }

    /// Logits (s, vocab) after each token of a prompt.
    ///
    /// # Errors
    /// What the archive or the device refuses.
    pub fn score(&self, session: &mut Session<'_>, tokens: &Tokens) -> Result<Tensor> {
        let variant = only(session.bundle().manifest(), "score")?;
        let size = size(variant)?;
        session.prepare(variant)?;
        let mut state = empty(session, variant)?;
        let mut bytes = Vec::new();
        for (index, piece) in tokens.ids.chunks(size).enumerate() {
            state.insert("tokens".into(), padded(piece, size).into());
            state.insert("start".into(), row(index * size).into());
            let mut found = run(session, variant, state)?;
            let logits = taken(variant, &mut found, "logits")?;
            let logits = session.download(&logits)?.ordered(&["b", "s", "vocab"]);
            let spec = TensorSpec::new(DType::F32, [1, size, self.vocab]);
            let Some(logits) = logits.filter(|logits| logits.spec == spec) else {
                return Err(Error::Archive(format!("{}: it returns other logits than (b, s, vocab)", variant.name)));
            };
            bytes.extend_from_slice(&logits.bytes[..piece.len() * self.vocab * 4]);
            state = kept(found);
        }
        let axes = ["s", "vocab"].map(String::from).to_vec();
        Ok(Tensor { axes, spec: TensorSpec::new(DType::F32, [tokens.ids.len(), self.vocab]), bytes })
    }
}

impl Settings {
    fn check(&self, tokens: &Tokens) -> Result<()> {
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Input("stop strings must be strings of at least one character".into()));
        }
        if !self.stop.is_empty() && tokens.tokenizer.is_none() {
            return Err(Error::Input("stop strings need a tokenizer, and the checkpoint has none".into()));
        }
        Ok(())
    }
}

/// A sequence in work. Everything but the ids of its tokens stays on the device.
struct Running<'s, 'a> {
    session: &'s mut Session<'a>,
    sample: &'a Variant,
    decode: &'a Variant,
    cache: State,
    logits: Option<Placed>,
    seen: Value,
    token: Option<Placed>,
}

impl<'s, 'a> Running<'s, 'a> {
    /// Runs the prompt through, in pieces as large as there are.
    fn begin(task: &Generate, session: &'s mut Session<'a>, ids: &[u32]) -> Result<Running<'s, 'a>> {
        let manifest = session.bundle().manifest();
        let prefill = entry_of(manifest, "prefill")?;
        let largest = largest(prefill)?;
        let mut cache = empty(session, &prefill.variants[0])?;
        let mut logits = None;
        for (index, piece) in ids.chunks(largest).enumerate() {
            let variant = fitting(prefill, piece.len())?;
            cache.insert("tokens".into(), padded(piece, size(variant)?).into());
            cache.insert("start".into(), row(index * largest).into());
            cache.insert("length".into(), row(piece.len()).into());
            let mut found = run(session, variant, cache)?;
            logits = Some(taken(variant, &mut found, "logits")?);
            cache = kept(found);
        }
        let mut seen = vec![0; task.vocab];
        ids.iter().for_each(|&id| seen[id as usize] = 1);
        let spec = TensorSpec::new(DType::Pred, [1, task.vocab]);
        let seen = Tensor { axes: ["b", "vocab"].map(String::from).to_vec(), spec, bytes: seen }.into();
        let (sample, decode) = (only(manifest, "sample")?, only(manifest, "decode")?);
        Ok(Running { session, sample, decode, cache, logits, seen, token: None })
    }

    /// The next token.
    fn sample(&mut self, settings: &Settings, step: usize) -> Result<u32> {
        let Sampling { temperature, top_k, top_p, min_p, repetition_penalty } = settings.sampling;
        let number = |value: f64| scalar(DType::F32, (value as f32).to_le_bytes());
        let missing = || Error::Archive("there are no logits to choose a token by".into());
        let given = [
            ("logits", self.logits.take().ok_or_else(missing)?.into()),
            ("seen", std::mem::replace(&mut self.seen, scalar(DType::Pred, [0]))),
            ("seed", scalar(DType::U32, settings.seed.to_le_bytes())),
            ("step", scalar(DType::I32, (step as i32).to_le_bytes())),
            ("temperature", number(temperature)),
            ("top_k", scalar(DType::I32, top_k.to_le_bytes())),
            ("top_p", number(top_p)),
            ("min_p", number(min_p)),
            ("repetition_penalty", number(repetition_penalty)),
        ];
        let mut found = run(self.session, self.sample, given.map(|(name, value)| (name.into(), value)).into())?;
        self.seen = taken(self.sample, &mut found, "seen")?.into();
        let token = taken(self.sample, &mut found, "token")?;
        let id = self.session.download(&token)?.bytes;
        self.token = Some(token);
        let id = id.try_into().ok().map(i32::from_le_bytes).and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::Archive(format!("{}: it returns no token", self.sample.name)))
    }

    /// Runs the token that was sampled last through, at its position.
    fn decode(&mut self, position: usize) -> Result<()> {
        let mut given = std::mem::take(&mut self.cache);
        given.extend(self.token.take().map(|token| ("token".into(), token.into())));
        given.insert("position".into(), row(position).into());
        let mut found = run(self.session, self.decode, given)?;
        self.logits = Some(taken(self.decode, &mut found, "logits")?);
        self.cache = kept(found);
        Ok(())
    }
}

fn entry_of<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Entry> {
    manifest.entry(name).ok_or_else(|| Error::Archive(format!("the task: there is no entry point {name}")))
}

/// An entry point that has no buckets.
fn only<'a>(manifest: &'a Manifest, name: &str) -> Result<&'a Variant> {
    Ok(&entry_of(manifest, name)?.variants[0])
}

/// How many tokens a variant takes.
fn size(variant: &Variant) -> Result<usize> {
    let tokens = variant.arguments.iter().find(|argument| argument.name == "tokens");
    let found = tokens.and_then(|tokens| Some(tokens.shape[tokens.axes.iter().position(|axis| axis == "s")?]));
    found
        .filter(|size| (1..=LARGEST).contains(size))
        .ok_or_else(|| Error::Archive(format!("the task: {} takes no tokens (b, s)", variant.name)))
}

fn largest(entry: &Entry) -> Result<usize> {
    entry.variants.iter().map(size).try_fold(1, |largest, size| Ok(largest.max(size?)))
}

/// The smallest variant that takes so many tokens.
fn fitting(entry: &Entry, count: usize) -> Result<&Variant> {
    let fits = entry.variants.iter().filter_map(|variant| Some((size(variant).ok()?, variant)));
    let smallest = fits.filter(|(size, _)| *size >= count).min_by_key(|(size, _)| *size);
    let none = || Error::Archive(format!("{} takes no {count} tokens", entry.name));
    smallest.map(|(_, variant)| variant).ok_or_else(none)
}

/// Runs a variant. That it takes other inputs than the task says is the archive's fault.
fn run(session: &mut Session<'_>, variant: &Variant, given: State) -> Result<BTreeMap<String, Placed>> {
    session.run(variant, given).map_err(|error| match error {
        Error::Input(problem) => Error::Archive(format!("the task: {problem}")),
        other => other,
    })
}

/// A variant's state before anything was run through it.
fn empty(session: &Session<'_>, variant: &Variant) -> Result<State> {
    let states = variant.arguments.iter().filter(|argument| argument.kind == Kind::State);
    states.map(|argument| Ok((argument.name.clone(), session.zeros(argument)?.into()))).collect()
}

fn taken(variant: &Variant, found: &mut BTreeMap<String, Placed>, name: &str) -> Result<Placed> {
    found.remove(name).ok_or_else(|| Error::Archive(format!("{}: it returns no {name}", variant.name)))
}

/// What is left of a call's results is the state for the next.
fn kept(found: BTreeMap<String, Placed>) -> State {
    found.into_iter().map(|(name, placed)| (name, placed.into())).collect()
}

fn padded(ids: &[u32], size: usize) -> Tensor {
    let mut bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    bytes.resize(size * 4, 0);
    Tensor { axes: ["b", "s"].map(String::from).to_vec(), spec: TensorSpec::new(DType::I32, [1, size]), bytes }
}

fn row(value: usize) -> Tensor {
    let bytes = (value as i32).to_le_bytes().to_vec();
    Tensor { axes: vec!["b".into()], spec: TensorSpec::new(DType::I32, [1]), bytes }
}

fn scalar<const N: usize>(dtype: DType, bytes: [u8; N]) -> Value {
    Tensor { axes: Vec::new(), spec: TensorSpec::new(dtype, []), bytes: bytes.to_vec() }.into()
}
