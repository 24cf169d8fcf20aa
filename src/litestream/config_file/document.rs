//! The YAML of Litestream's configuration, as Litestream's own library decodes it.
//!
//! Owns what a repeated key, an alias and a merge mean there: each one is laid over what stands before
//! it, and mappings are laid over each other key by key. Owns the bounds: an alias costs what it
//! stands for. Never looks at more than the first document; Litestream does not either.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use yaml_rust2::parser::{Event, Parser};
use yaml_rust2::scanner::TScalarStyle;

/// Nothing that somebody wrote nests deeper.
const DEEPEST: usize = 64;

/// All of the document, aliases resolved: bytes of text, and [`NODE`] for each node.
const HEAVIEST: usize = 4 * 1024 * 1024;

/// What a node weighs beside its text.
const NODE: usize = 64;

/// A node of the document, aliases and merges resolved.
#[derive(Clone, Debug)]
pub(super) struct Node {
    weight: usize,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Scalar { text: String, is_plain: bool },
    List(Vec<Rc<Node>>),
    Map(BTreeMap<String, Rc<Node>>),
}

impl Node {
    /// The first document in `text`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub(super) fn parse(text: &str) -> Result<Rc<Self>, String> {
        let mut reader = Reader {
            parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)),
            anchors: HashMap::new(),
            weight: 0,
        };
        loop {
            match reader.next()? {
                Event::StreamEnd => return Ok(scalar(String::new(), true)),
                Event::StreamStart | Event::DocumentStart | Event::Nothing => {}
                first => return reader.node(first, 0),
            }
        }
    }

    /// The value of `key`, where this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries.get(key).map(|node| &**node),
            _ => None,
        }
    }

    /// The text of `key`'s value; none where it is empty, as good as absent to Litestream.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.content {
            Content::Scalar { text, .. } => Some(text.as_str()).filter(|text| !text.is_empty()),
            _ => None,
        }
    }

    /// Whether `key`'s value is one of YAML 1.1's words for yes.
    pub(super) fn is_true(&self, key: &str) -> bool {
        const WORDS: [&str; 4] = ["y", "yes", "true", "on"];
        let Some(Content::Scalar { text, is_plain }) = self.get(key).map(|node| &node.content)
        else {
            return false;
        };
        let is_cased = |word: &str| {
            let capital = word[..1].to_uppercase() + &word[1..];
            *text == word || *text == word.to_uppercase() || *text == capital
        };
        *is_plain && WORDS.iter().any(|word| is_cased(word))
    }

    /// The elements of `key`'s value, where that is a list.
    pub(super) fn list(&self, key: &str) -> impl Iterator<Item = &Self> {
        let elements = match self.get(key).map(|node| &node.content) {
            Some(Content::List(elements)) => elements.as_slice(),
            _ => &[],
        };
        elements.iter().map(|node| &**node)
    }

    /// This mapping with another value of `key`.
    pub(super) fn with(&self, key: &str, value: Self) -> Self {
        let mut entries = match &self.content {
            Content::Map(entries) => entries.clone(),
            _ => BTreeMap::new(),
        };
        entries.insert(key.to_owned(), Rc::new(value));
        Self::clone(&map(entries))
    }

    /// A text.
    pub(super) fn of_text(text: &str) -> Self {
        Self::clone(&scalar(text.to_owned(), false))
    }

    /// A list of one element.
    pub(super) fn of_one(element: Self) -> Self {
        Self::clone(&list(vec![Rc::new(element)]))
    }

    /// As YAML on one line, but for the keys `without`, wherever they are.
    pub(super) fn print(&self, without: &[&str]) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.content {
            Content::Scalar { text, is_plain } => {
                // A number, a truth or a duration, and no text that looks like one.
                let is_word = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
                match *is_plain && text.chars().all(is_word) {
                    true if text.is_empty() => "~".to_owned(),
                    true => text.clone(),
                    false => quoted(text),
                }
            }
            Content::List(elements) => {
                let elements: Vec<_> = elements.iter().map(|one| one.print(without)).collect();
                format!("[{}]", elements.join(", "))
            }
            Content::Map(entries) => {
                let kept = entries
                    .iter()
                    .filter(|(key, _)| !without.contains(&key.as_str()));
                let kept: Vec<_> = kept
                    .map(|(key, value)| format!("{}: {}", quoted(key), value.print(without)))
                    .collect();
                format!("{{{}}}", kept.join(", "))
            }
        }
    }

    fn is_empty(&self) -> bool {
        matches!(&self.content, Content::Scalar { text, is_plain: true }
            if ["", "~", "null"].contains(&text.as_str()))
    }
}

/// The events of one document, and what they have built so far.
struct Reader<'a> {
    parser: Parser<std::str::Chars<'a>>,
    anchors: HashMap<usize, Rc<Node>>,
    weight: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Result<Event, String> {
        let next = self.parser.next_token().map_err(|e| e.to_string());
        next.map(|(event, _)| event)
    }

    /// The node that begins with `first`.
    fn node(&mut self, first: Event, depth: usize) -> Result<Rc<Node>, String> {
        if depth > DEEPEST {
            return Err(format!("it nests deeper than {DEEPEST} levels"));
        }
        let (node, anchor) = match first {
            Event::Scalar(text, style, anchor, _) => {
                (scalar(text, style == TScalarStyle::Plain), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut elements = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => break,
                        event => elements.push(self.node(event, depth + 1)?),
                    }
                }
                (list(elements), anchor)
            }
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(id) => {
                let known = self.anchors.get(&id).cloned();
                let node = known.ok_or("an alias stands for something that contains it")?;
                self.weigh(node.weight)?;
                return Ok(node);
            }
            event => return Err(format!("{event:?} is out of place")),
        };
        self.weigh(match &node.content {
            Content::Scalar { text, .. } => text.len().saturating_add(NODE),
            _ => NODE,
        })?;
        if anchor > 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn map(&mut self, depth: usize) -> Result<Rc<Node>, String> {
        let mut entries = BTreeMap::new();
        loop {
            let event = self.next()?;
            if event == Event::MappingEnd {
                return Ok(map(entries));
            }
            let key = self.node(event, depth + 1)?;
            let event = self.next()?;
            let value = self.node(event, depth + 1)?;
            let Content::Scalar { text, is_plain } = &key.content else {
                continue;
            };
            if *is_plain && text == "<<" {
                merge(&mut entries, &value)?;
            } else {
                lay_over(&mut entries, text, &value);
            }
        }
    }

    fn weigh(&mut self, more: usize) -> Result<(), String> {
        self.weight = self.weight.saturating_add(more);
        match self.weight > HEAVIEST {
            true => Err("its aliases stand for more than any configuration holds".to_owned()),
            false => Ok(()),
        }
    }
}

/// Litestream's library takes the merged mapping where it meets it: keys that stand before lose.
fn merge(entries: &mut BTreeMap<String, Rc<Node>>, value: &Node) -> Result<(), String> {
    let one = [Rc::new(value.clone())];
    let sources = match &value.content {
        Content::List(sources) => sources.as_slice(),
        _ => &one,
    };
    // Of several the first one wins.
    for source in sources.iter().rev() {
        let Content::Map(merged) = &source.content else {
            return Err("`<<` merges something that is no mapping".to_owned());
        };
        for (key, value) in merged {
            lay_over(entries, key, value);
        }
    }
    Ok(())
}

fn lay_over(entries: &mut BTreeMap<String, Rc<Node>>, key: &str, value: &Rc<Node>) {
    let below = entries.get(key).map(|node| &node.content);
    let laid = match (below, &value.content) {
        (Some(Content::Map(below)), Content::Map(above)) => {
            let mut both = below.clone();
            for (key, value) in above {
                lay_over(&mut both, key, value);
            }
            map(both)
        }
        _ => Rc::clone(value),
    };
    entries.insert(key.to_owned(), laid);
}

fn scalar(text: String, is_plain: bool) -> Rc<Node> {
    let node = Node {
        weight: text.len().saturating_add(NODE),
        content: Content::Scalar { text, is_plain },
    };
    // `key: ~` is no text.
    if node.is_empty() && node.weight > NODE {
        return scalar(String::new(), true);
    }
    Rc::new(node)
}

fn list(elements: Vec<Rc<Node>>) -> Rc<Node> {
    let weight = weight(elements.iter());
    Rc::new(Node {
        weight,
        content: Content::List(elements),
    })
}

fn map(entries: BTreeMap<String, Rc<Node>>) -> Rc<Node> {
    let weight = weight(entries.values());
    Rc::new(Node {
        weight,
        content: Content::Map(entries),
    })
}

fn weight<'a>(nodes: impl Iterator<Item = &'a Rc<Node>>) -> usize {
    nodes.fold(NODE, |all, node| all.saturating_add(node.weight))
}
