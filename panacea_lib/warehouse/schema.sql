-- The base tables, version 1. One row belongs to the content key of what made it (never to a
-- problem: two problems may share a product); facts.current says which key each problem shows today.
-- Every write runs this file again, so a dropped table comes back empty and its product is remade.
create schema if not exists facts;

create table if not exists facts.schema_version (
    version integer not null,
    definitions varchar not null    -- hash of all these files; a new one is republished
);

create table if not exists facts.products (
    key varchar primary key,
    stage varchar not null,
    part varchar not null,
    problem varchar not null,
    run_id varchar not null,
    created_at timestamp not null,
    seconds double not null,
    seed integer not null,
    row_counts json not null,
    details json not null
);
comment on table facts.products is 'One row per product of a stage: who made it, when, and its rows';
comment on column facts.products.key is 'content key: the hash of everything the product follows from';
comment on column facts.products.part is 'a dimension, a method, or empty for a stage in one piece';
comment on column facts.products.problem is 'the problem it was first made for';
comment on column facts.products.run_id is 'the Dagster run that made it, or library';
comment on column facts.products.created_at is 'UTC';
comment on column facts.products.row_counts is 'table -> rows under this key; checked before reuse';
comment on column facts.products.details is 'what the stage says of itself: counts, hashes, versions';

create table if not exists facts.origins (
    key varchar primary key,
    content json not null,
    reason varchar not null
);
comment on table facts.origins is 'What every product follows from, and why it was made';
comment on column facts.origins.content is
    'everything the content key is the hash of: configuration, seed, versions, keys of inputs';
comment on column facts.origins.reason is 'why it was made when it last was, in words';

create table if not exists facts.current (
    problem varchar not null,
    stage varchar not null,
    part varchar not null,
    key varchar not null,
    materialized_at timestamp not null,
    primary key (problem, stage, part)
);
comment on table facts.current is 'The key that each problem shows today; the views follow it';

create table if not exists facts.adoptions (
    problem varchar not null,
    stage varchar not null,
    part varchar not null,
    key varchar not null,
    since timestamp not null
);
comment on table facts.adoptions is
    'Every time a problem began to show a key, so that history knows the inputs of old products';

create table if not exists facts.champion_events (
    problem varchar not null,
    decided_at timestamp not null,
    action varchar not null,
    policy_key varchar not null,
    front_key varchar,
    base_key varchar not null,
    quantization varchar not null,
    dimensions varchar[] not null,
    incumbent_key varchar,
    metric varchar,
    judge varchar,
    difference double,
    low double,
    high double,
    reason varchar not null,
    decided_by varchar not null,
    decision_key varchar
);
comment on table facts.champion_events is
    'Every decision on a problem''s champion, only ever added to; the last that is not a refusal '
    'says who it is';
comment on column facts.champion_events.problem is 'the alignment problem';
comment on column facts.champion_events.decided_at is 'when it was decided, UTC; rises within a problem';
comment on column facts.champion_events.action is 'promoted, refused or rolled_back';
comment on column facts.champion_events.policy_key is
    'content key of the policy that was decided on: champion from then on unless refused';
comment on column facts.champion_events.front_key is
    'content key of the evaluation that has its figures';
comment on column facts.champion_events.base_key is 'content key of the base model it is made of';
comment on column facts.champion_events.quantization is 'how its base model is loaded';
comment on column facts.champion_events.dimensions is 'its dimensions, in the order of λ';
comment on column facts.champion_events.incumbent_key is
    'policy key of the champion until then; null where there was none';
comment on column facts.champion_events.metric is 'the figure they were compared by';
comment on column facts.champion_events.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column facts.champion_events.difference is
    'of the figure: policy less incumbent, on the same prompts; null where nothing was compared';
comment on column facts.champion_events.low is '95 % paired interval, lower end';
comment on column facts.champion_events.high is '95 % paired interval, upper end';
comment on column facts.champion_events.reason is 'why, in words';
comment on column facts.champion_events.decided_by is
    'run and its id where the gate decided, user and a name where a person did';
comment on column facts.champion_events.decision_key is
    'content key of what the gate decided on; null where a person did';

create table if not exists facts.dimensions (
    key varchar not null,
    position integer not null,
    dimension varchar not null,
    description varchar not null
);
comment on table facts.dimensions is 'Stage prompts: the dimensions in the order of λ';

create table if not exists facts.prompts (
    key varchar not null,
    prompt_id varchar not null,
    split varchar not null,
    text varchar not null
);
comment on table facts.prompts is 'Stage prompts: every prompt and its split';

create table if not exists facts.prompt_topics (
    key varchar not null,
    prompt_id varchar not null,
    topic varchar not null
);
comment on table facts.prompt_topics is
    'Stage prompts: what prompts are about, where a column of the data says; no row: unknown';
comment on column facts.prompt_topics.topic is 'as the data has it';

create table if not exists facts.responses (
    key varchar not null,
    response_id varchar not null,
    prompt_id varchar not null,
    source varchar not null,
    text varchar not null
);
comment on table facts.responses is 'Stage responses: samples of the reference policy';
comment on column facts.responses.source is 'reference, or data';

create table if not exists facts.pairs (
    key varchar not null,
    pair_id varchar not null,
    prompt_id varchar not null,
    split varchar not null,
    response_a varchar not null,
    response_b varchar not null
);
comment on table facts.pairs is 'Stage pairs: two responses (ids) to one prompt';

create table if not exists facts.annotations (
    key varchar not null,
    pair_id varchar not null,
    dimension varchar not null,
    source varchar not null,
    annotator varchar not null,
    label double,
    score_a double,
    score_b double,
    shown_first varchar,
    status varchar not null,
    reason varchar
);
comment on table facts.annotations is
    'Stage annotations: what every annotator said, each time; preference_labels follow from them';
comment on column facts.annotations.source is 'data, world, people, judge, model or rule';
comment on column facts.annotations.annotator is 'which one of that kind';
comment on column facts.annotations.label is 'P(a preferred over b) in [0, 1]; 0.5 is a tie';
comment on column facts.annotations.score_a is 'where responses are scored one by one';
comment on column facts.annotations.score_b is 'where responses are scored one by one';
comment on column facts.annotations.shown_first is 'a or b, where the annotator saw them in order';
comment on column facts.annotations.status is 'ok, or failed (then label is null)';

create table if not exists facts.label_costs (
    key varchar not null,
    dimension varchar not null,
    source varchar not null,
    annotator varchar not null,
    requests bigint not null,
    cached bigint not null,
    failed bigint not null,
    input_tokens bigint not null,
    output_tokens bigint not null,
    cost double
);
comment on table facts.label_costs is 'Stage annotations: what judges cost';
comment on column facts.label_costs.requests is 'sent when the product was made';
comment on column facts.label_costs.cached is 'answers that had been paid for before';
comment on column facts.label_costs.failed is 'requests without a usable answer';
comment on column facts.label_costs.input_tokens is 'of all answers, whenever they were paid for';
comment on column facts.label_costs.output_tokens is 'of all answers, whenever they were paid for';
comment on column facts.label_costs.cost is 'by the prices of the problem; null without';

create table if not exists facts.preference_labels (
    key varchar not null,
    pair_id varchar not null,
    dimension varchar not null,
    label double,
    status varchar not null,
    source varchar not null,
    annotator varchar not null,
    confidence double,
    reason varchar
);
comment on table facts.preference_labels is
    'Stage preference_labels: one row per pair and dimension; an absent row is unknown';
comment on column facts.preference_labels.label is 'P(a preferred over b) in [0, 1]; 0.5 is a tie';
comment on column facts.preference_labels.status is 'ok, or failed (then label is null)';

create table if not exists facts.label_agreement (
    key varchar not null,
    dimension varchar not null,
    annotator varchar not null,
    metric varchar not null,
    value double,
    n bigint not null
);
comment on table facts.label_agreement is
    'Stage preference_labels: how far annotators agree, of all sources together';
comment on column facts.label_agreement.annotator is 'source and name; empty for all together';
comment on column facts.label_agreement.metric is
    'alpha (Krippendorff; of one annotator: with all others), or majority';
comment on column facts.label_agreement.value is
    'alpha: 1 perfect, 0 chance; majority: share of pairs on the side of the others; null: unknown';
comment on column facts.label_agreement.n is 'pairs that at least two annotators have labelled';

create table if not exists facts.reward_model_metrics (
    key varchar not null,
    dimension varchar not null,
    metric varchar not null,
    value double,
    low double,
    high double,
    n integer
);
comment on table facts.reward_model_metrics is
    'Stage reward_models: accuracy, majority, length_only, ece and others, on held-out pairs; '
    'accuracy/TOPIC where topics are known';

create table if not exists facts.reward_calibration (
    key varchar not null,
    dimension varchar not null,
    scaled boolean not null,
    bin integer not null,
    n integer not null,
    predicted double not null,
    observed double not null,
    low double not null,
    high double not null
);
comment on table facts.reward_calibration is
    'Stage reward_models: reliability on held-out pairs, in bins of like numbers of pairs';
comment on column facts.reward_calibration.scaled is
    'whether margins were divided by a temperature, fitted to the other half of the prompts';
comment on column facts.reward_calibration.bin is 'from 0, the least sure pairs';
comment on column facts.reward_calibration.n is 'pairs in the bin, ties included';
comment on column facts.reward_calibration.predicted is
    'mean P(preferred) of the side that the model prefers, by its reward difference';
comment on column facts.reward_calibration.observed is 'mean label of that side';
comment on column facts.reward_calibration.low is
    '95 % Wilson interval of observed, lower end; takes pairs of one prompt for independent';
comment on column facts.reward_calibration.high is '95 % Wilson interval of observed, upper end';

create table if not exists facts.response_rewards (
    key varchar not null,
    response_id varchar not null,
    dimension varchar not null,
    raw double not null,
    reward double not null
);
comment on table facts.response_rewards is 'Stage response_rewards: the scores of all responses';
comment on column facts.response_rewards.reward is '(raw - mean) / scale of the reference samples';

create table if not exists facts.policies (
    key varchar not null,
    method varchar not null,
    steps integer not null,
    seconds double not null,
    tokens bigint not null,
    trained_parameters bigint not null,
    stored_parameters bigint not null
);
comment on table facts.policies is
    'Stages panacea_policy and baseline_policies: what each method cost; one row per key';

create table if not exists facts.training_curves (
    key varchar not null,
    method varchar not null,
    step integer not null,
    dimension varchar not null,
    metric varchar not null,
    value double not null
);
comment on table facts.training_curves is 'Any stage that trains: metrics by optimiser step';
comment on column facts.training_curves.dimension is 'empty for a metric of the whole step';

create table if not exists facts.preference_grid (
    key varchar not null,
    point integer not null,
    dimension varchar not null,
    weight double not null
);
comment on table facts.preference_grid is
    'Stage generations: the preference vectors of one grid; same key as its generations';

create table if not exists facts.generations (
    key varchar not null,
    generation_id varchar not null,
    method varchar not null,
    point integer not null,
    prompt_id varchar not null,
    sample integer not null,
    text varchar not null,
    tokens integer not null,
    logprob double not null,
    reference_logprob double not null
);
comment on table facts.generations is 'Stage generations: answers to held-out prompts, per point';
comment on column facts.generations.logprob is 'nats, of the whole response, under this λ';
comment on column facts.generations.reference_logprob is 'nats, under the reference policy';

create table if not exists facts.generation_rewards (
    key varchar not null,
    generation_id varchar not null,
    dimension varchar not null,
    judge varchar not null,
    reward double not null
);
comment on table facts.generation_rewards is
    'Stage generations: normalised rewards; same key as its generations';
comment on column facts.generation_rewards.judge is 'gold (embedded world only), or proxy';

create table if not exists facts.front_rewards (
    key varchar not null,
    method varchar not null,
    judge varchar not null,
    point integer not null,
    dimension varchar not null,
    weight double not null,
    reward double not null,
    reward_low double not null,
    reward_high double not null,
    n integer not null
);
comment on table facts.front_rewards is 'Stage pareto_front: mean reward per point and dimension';

create table if not exists facts.front_values (
    key varchar not null,
    method varchar not null,
    judge varchar not null,
    point integer not null,
    kl double not null,
    kl_low double not null,
    kl_high double not null,
    value double not null,
    reference_value double not null,
    optimal_value double not null,
    n integer not null
);
comment on table facts.front_values is 'Stage pareto_front: KL and values per point';
comment on column facts.front_values.value is 'V(λ) = E[λ·r] − β·KL(π_λ‖π_ref)';
comment on column facts.front_values.reference_value is 'V_ref(λ) = λ·E_ref[r]';
comment on column facts.front_values.optimal_value is 'V*(λ), the most that can be had';

create table if not exists facts.front_metrics (
    key varchar not null,
    method varchar not null,
    judge varchar not null,
    metric varchar not null,
    value double,
    low double,
    high double,
    n integer not null
);
comment on table facts.front_metrics is
    'Stage pareto_front: one figure per metric: value_ratio, hypervolume, charged_hypervolume, '
    'inner_product, sparsity, spacing, kl and others';

create table if not exists facts.front_comparisons (
    key varchar not null,
    method varchar not null,
    other varchar not null,
    judge varchar not null,
    metric varchar not null,
    difference double,
    low double,
    high double
);
comment on table facts.front_comparisons is
    'Stage pareto_front: method less other, by one figure, under the same resamples of prompts';

create table if not exists facts.answering_costs (
    key varchar not null,
    method varchar not null,
    forwards_per_token integer not null,
    adapters integer not null
);
comment on table facts.answering_costs is
    'Stage pareto_front: what an answer costs once a policy is trained';

create table if not exists facts.sliders (
    key varchar not null,
    method varchar not null,
    judge varchar not null,
    calibrated boolean not null,
    position double not null,
    dimension varchar not null,
    weight double not null
);
comment on table facts.sliders is
    'Stage pareto_front, problems of two dimensions: which λ a position of the slider means, '
    'linear between the rows';
comment on column facts.sliders.judge is 'whose rewards it was fitted to: gold, else proxy';
comment on column facts.sliders.calibrated is
    'false where all points of the method are equal, and the position is the first weight itself';
comment on column facts.sliders.position is
    'share of the way along the front towards the first dimension, from 0 to 1';
comment on column facts.sliders.weight is 'λ of the dimension at that position';
