-- Views of labels: where they came from, what they are worth, what they cost.

create or replace view preference_conflicts_history as
select
    k.problem, a.dimension as dimension_a, b.dimension as dimension_b, count(*) as pairs,
    count(*) filter ((a.label - 0.5) * (b.label - 0.5) < 0) as disagreements,
    disagreements / pairs as disagreement,
    k.key, k.created_at, k.is_current
from keys_history k
join facts.preference_labels a using (key)
join facts.preference_labels b
    on b.key = a.key and b.pair_id = a.pair_id and a.dimension < b.dimension
where k.stage = 'preference_labels' and a.status = 'ok' and b.status = 'ok'
group by k.problem, dimension_a, dimension_b, k.key, k.created_at, k.is_current;
comment on view preference_conflicts_history is 'Conflicts in every set of labels of a problem';

create or replace view preference_conflicts as
select * exclude (key, created_at, is_current) from preference_conflicts_history where is_current
order by problem, disagreement desc, dimension_a, dimension_b;
comment on view preference_conflicts is 'How often two dimensions prefer different responses';
comment on column preference_conflicts.pairs is 'pairs labelled on both dimensions, ties included';
comment on column preference_conflicts.disagreement is
    'share of those pairs whose labels lie on opposite sides of a tie';

create or replace view label_quality_history as
with labelled as (  -- the named dimensions first: one without a single label is the worst quality
    select k.problem, k.key, d.dimension from keys_history k
    join facts.dimensions d on d.key = k.prompts_key where k.stage = 'preference_labels'
    union
    select k.problem, k.key, l.dimension from keys_history k
    join facts.preference_labels l using (key) where k.stage = 'preference_labels'
),
all_pairs as (select key as pairs_key, count(*) as pairs from facts.pairs group by key)
select
    k.problem, labelled.dimension, all_pairs.pairs, count(*) filter (l.status = 'ok') as labels,
    labels / all_pairs.pairs as coverage, count(*) filter (l.label = 0.5) as ties,
    count(*) filter (l.status = 'failed') as failed, avg(l.label) as mean_label,
    coalesce(histogram(l.source), map {}) as sources,
    k.key, k.created_at, k.is_current
from keys_history k
join labelled on labelled.problem = k.problem and labelled.key = k.key
left join all_pairs using (pairs_key)
left join facts.preference_labels l on l.key = k.key and l.dimension = labelled.dimension
where k.stage = 'preference_labels'
group by k.problem, labelled.dimension, all_pairs.pairs, k.key, k.created_at, k.is_current;
comment on view label_quality_history is 'The quality of every set of labels of a problem';

create or replace view label_quality as
select * exclude (key, created_at, is_current) from label_quality_history where is_current
order by problem, dimension;
comment on view label_quality is 'How well each dimension is labelled';
comment on column label_quality.pairs is 'pairs of the problem';
comment on column label_quality.labels is 'pairs with a label on this dimension';
comment on column label_quality.coverage is 'labels / pairs';
comment on column label_quality.ties is 'labels of exactly 0.5';
comment on column label_quality.failed is 'labels that could not be had; never guessed';
comment on column label_quality.mean_label is 'far from 0.5: the order of a and b leaks into labels';
comment on column label_quality.sources is 'source -> rows';

create or replace view label_sources_history as
with all_pairs as (select key as pairs_key, count(*) as pairs from facts.pairs group by key)
select
    k.problem, a.dimension, a.source, a.annotator,
    count(distinct a.pair_id) as pairs, count(distinct a.pair_id) / all_pairs.pairs as coverage,
    count(distinct a.pair_id) filter (a.status = 'failed') as failed,
    count(distinct a.pair_id) filter (a.label = 0.5) as ties, avg(a.label) as mean_label,
    mode(a.reason) as commonest_failure,
    k.key, k.created_at, k.is_current
from keys_history k
join facts.annotations a using (key)
left join all_pairs using (pairs_key)
where k.stage = 'annotations'
group by k.problem, a.dimension, a.source, a.annotator, all_pairs.pairs, k.key, k.created_at,
    k.is_current;
comment on view label_sources_history is 'What every annotator of every set of labels said';

create or replace view label_sources as
select * exclude (key, created_at, is_current) from label_sources_history where is_current
order by problem, dimension, source, annotator;
comment on view label_sources is 'How much each annotator labelled, and how';
comment on column label_sources.annotator is 'of people: the person; of a judge: its name';
comment on column label_sources.pairs is 'pairs that this annotator was asked about';
comment on column label_sources.coverage is 'pairs / pairs of the problem';
comment on column label_sources.failed is 'pairs without a usable answer';
comment on column label_sources.ties is 'pairs with an answer of exactly 0.5';
comment on column label_sources.mean_label is 'far from 0.5: the order of a and b leaks into labels';
comment on column label_sources.commonest_failure is 'the reason given most often';

create or replace view position_bias_history as
with orders as (
    select
        k.problem, k.key, k.created_at, k.is_current, a.dimension, a.annotator, a.pair_id,
        max(a.label) filter (a.shown_first = 'a') as shown_a,
        max(a.label) filter (a.shown_first = 'b') as shown_b
    from keys_history k join facts.annotations a using (key)
    where k.stage = 'annotations' and a.shown_first is not null and a.status = 'ok'
    group by all
)
select
    problem, dimension, annotator, count(*) as pairs,
    avg((shown_a + 1 - shown_b) / 2) as first_preferred,
    avg((abs(shown_a - shown_b) < 0.5)::integer) as consistent,
    key, created_at, is_current
from orders where shown_a is not null and shown_b is not null
group by problem, dimension, annotator, key, created_at, is_current;
comment on view position_bias_history is 'The position bias of every judge a problem has asked';

create or replace view position_bias as
select * exclude (key, created_at, is_current) from position_bias_history where is_current
order by problem, dimension, annotator;
comment on view position_bias is 'Whether a judge prefers what it is shown first';
comment on column position_bias.pairs is 'pairs with a usable answer in both orders';
comment on column position_bias.first_preferred is
    'how often the response shown first wins, ties as half; 0.5: no bias';
comment on column position_bias.consistent is 'share of pairs with the same verdict in both orders';

create or replace view label_costs_history as
select
    k.problem, c.* exclude (key), c.input_tokens + c.output_tokens as tokens,
    k.key, k.created_at, k.is_current
from keys_history k join facts.label_costs c using (key)
where k.stage = 'annotations';
comment on view label_costs_history is 'What every judge a problem has asked cost';

create or replace view label_costs as
select * exclude (key, created_at, is_current) from label_costs_history where is_current
order by problem, dimension, annotator;
comment on view label_costs is 'What judges cost';
comment on column label_costs.tokens is 'input and output together';

create or replace view label_agreement_history as
select
    k.problem, g.dimension, g.annotator,
    max(g.value) filter (g.metric = 'alpha') as alpha,
    max(g.value) filter (g.metric = 'majority') as with_majority,
    max(g.n) as pairs,
    k.key, k.created_at, k.is_current
from keys_history k join facts.label_agreement g using (key)
where k.stage = 'preference_labels'
group by k.problem, g.dimension, g.annotator, k.key, k.created_at, k.is_current;
comment on view label_agreement_history is 'Agreement in every set of labels of a problem';

create or replace view label_agreement as
select * exclude (key, created_at, is_current) from label_agreement_history where is_current
order by problem, dimension, annotator;
comment on view label_agreement is 'How far annotators agree, of all sources together';
comment on column label_agreement.annotator is 'source and name; empty for all together';
comment on column label_agreement.alpha is
    'Krippendorff: 1 perfect, 0 chance; of one annotator: with all others';
comment on column label_agreement.with_majority is 'share of pairs on the side of the others';
comment on column label_agreement.pairs is 'pairs that at least two have labelled';

create or replace view source_agreement as
with opinions as (
    select
        k.problem, a.dimension, a.pair_id, a.source || ' ' || a.annotator as annotator,
        avg(a.label) as label
    from keys_history k join facts.annotations a using (key)
    where k.stage = 'annotations' and k.is_current and a.status = 'ok'
    group by all
)
select
    a.problem, a.dimension, a.annotator as annotator_a, b.annotator as annotator_b,
    count(*) as pairs,
    avg(case
        when a.label = 0.5 and b.label = 0.5 then 1.0
        when a.label = 0.5 or b.label = 0.5 then 0.5
        else ((a.label > 0.5) = (b.label > 0.5))::integer
    end) as agreement
from opinions a
join opinions b on b.problem = a.problem and b.dimension = a.dimension and b.pair_id = a.pair_id
    and a.annotator < b.annotator
group by all
order by a.problem, a.dimension, annotator_a, annotator_b;
comment on view source_agreement is 'How often two annotators prefer the same response';
comment on column source_agreement.annotator_a is 'source and name';
comment on column source_agreement.annotator_b is 'source and name';
comment on column source_agreement.pairs is 'pairs that both have labelled';
comment on column source_agreement.agreement is 'share of those; a tie against a winner is half';
