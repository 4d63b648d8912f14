-- What the columns mean that the files beside this one leave without a word, so that the database
-- explains itself: `select column_name, comment from duckdb_columns()`.

comment on column facts.adoptions.problem is 'the alignment problem';
comment on column facts.adoptions.stage is 'the asset';
comment on column facts.adoptions.part is
    'a dimension, a method, or empty for a stage in one piece';
comment on column facts.adoptions.key is 'content key of the product that the row belongs to';
comment on column facts.adoptions.since is 'when the problem began to show the key, UTC';

comment on column facts.answering_costs.key is 'content key of the product that the row belongs to';
comment on column facts.answering_costs.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.answering_costs.forwards_per_token is
    'forwards of the model for each token of an answer';
comment on column facts.answering_costs.adapters is 'adapters that must be in memory';

comment on column facts.current.problem is 'the alignment problem';
comment on column facts.current.stage is 'the asset';
comment on column facts.current.part is 'a dimension, a method, or empty for a stage in one piece';
comment on column facts.current.key is 'content key of the product that the row belongs to';
comment on column facts.current.materialized_at is 'when it was last made or found again, UTC';

comment on column facts.dimensions.key is 'content key of the product that the row belongs to';
comment on column facts.dimensions.position is 'of the dimension in λ';
comment on column facts.dimensions.dimension is 'the axis of preference';
comment on column facts.dimensions.description is 'as the problem file has it';

comment on column facts.front_comparisons.key is
    'content key of the product that the row belongs to';
comment on column facts.front_comparisons.method is 'the one';
comment on column facts.front_comparisons.other is 'the other';
comment on column facts.front_comparisons.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column facts.front_comparisons.metric is
    'value_ratio, charged_hypervolume or expected_utility; more is better';
comment on column facts.front_comparisons.difference is 'of the figure: method less other';
comment on column facts.front_comparisons.low is '95 % interval, lower end';
comment on column facts.front_comparisons.high is '95 % interval, upper end';

comment on column facts.front_metrics.key is 'content key of the product that the row belongs to';
comment on column facts.front_metrics.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.front_metrics.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column facts.front_metrics.metric is 'the name of the figure';
comment on column facts.front_metrics.value is 'the figure';
comment on column facts.front_metrics.low is '95 % interval, lower end';
comment on column facts.front_metrics.high is '95 % interval, upper end';
comment on column facts.front_metrics.n is 'samples that it rests on';

comment on column facts.front_rewards.key is 'content key of the product that the row belongs to';
comment on column facts.front_rewards.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.front_rewards.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column facts.front_rewards.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column facts.front_rewards.dimension is 'the axis of preference';
comment on column facts.front_rewards.weight is 'λ of this dimension at this point';
comment on column facts.front_rewards.reward is 'mean normalised reward over the held-out prompts';
comment on column facts.front_rewards.reward_low is '95 % interval over prompts, lower end';
comment on column facts.front_rewards.reward_high is '95 % interval over prompts, upper end';
comment on column facts.front_rewards.n is 'samples that it rests on';

comment on column facts.front_values.key is 'content key of the product that the row belongs to';
comment on column facts.front_values.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.front_values.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column facts.front_values.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column facts.front_values.kl is 'KL(π_λ‖π_ref), nats';
comment on column facts.front_values.kl_low is '95 % interval over prompts, lower end';
comment on column facts.front_values.kl_high is '95 % interval over prompts, upper end';
comment on column facts.front_values.n is 'samples that it rests on';

comment on column facts.generation_rewards.key is
    'content key of the product that the row belongs to';
comment on column facts.generation_rewards.generation_id is
    'hash of method, point, prompt and sample';
comment on column facts.generation_rewards.dimension is 'the axis of preference';
comment on column facts.generation_rewards.reward is
    'normalised: 0 is the mean of the reference, 1 its spread';

comment on column facts.generations.key is 'content key of the product that the row belongs to';
comment on column facts.generations.generation_id is 'hash of method, point, prompt and sample';
comment on column facts.generations.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.generations.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column facts.generations.prompt_id is 'hash of the prompt';
comment on column facts.generations.sample is
    'number of the answer among those to one prompt under one λ';
comment on column facts.generations.text is 'the answer';
comment on column facts.generations.tokens is 'of the answer, its end included';

comment on column facts.origins.key is 'content key of the product that the row belongs to';

comment on column facts.pairs.key is 'content key of the product that the row belongs to';
comment on column facts.pairs.pair_id is 'hash of prompt and responses';
comment on column facts.pairs.prompt_id is 'hash of the prompt';
comment on column facts.pairs.split is 'train, validation or test';
comment on column facts.pairs.response_a is 'hash of the one response';
comment on column facts.pairs.response_b is 'hash of the other';

comment on column facts.policies.key is 'content key of the product that the row belongs to';
comment on column facts.policies.method is 'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.policies.steps is 'optimiser steps of all adapters together';
comment on column facts.policies.seconds is 'training time';
comment on column facts.policies.tokens is 'tokens trained on';
comment on column facts.policies.trained_parameters is 'numbers that training changed';
comment on column facts.policies.stored_parameters is 'numbers that must be kept to serve every λ';

comment on column facts.preference_grid.key is 'content key of the product that the row belongs to';
comment on column facts.preference_grid.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column facts.preference_grid.dimension is 'the axis of preference';
comment on column facts.preference_grid.weight is 'λ of this dimension at this point';

comment on column facts.preference_labels.key is
    'content key of the product that the row belongs to';
comment on column facts.preference_labels.pair_id is 'hash of prompt and responses';
comment on column facts.preference_labels.dimension is 'the axis of preference';
comment on column facts.preference_labels.source is 'where the label came from';
comment on column facts.preference_labels.annotator is 'who gave it';
comment on column facts.preference_labels.confidence is 'of the annotator, where it is known';
comment on column facts.preference_labels.reason is 'why it failed';

comment on column facts.products.stage is 'the asset';
comment on column facts.products.seconds is 'time it took to make';
comment on column facts.products.seed is 'of all draws';

comment on column facts.prompts.key is 'content key of the product that the row belongs to';
comment on column facts.prompts.prompt_id is 'hash of the prompt';
comment on column facts.prompts.split is 'train, validation or test';
comment on column facts.prompts.text is 'the prompt';

comment on column facts.prompt_topics.key is 'content key of the product that the row belongs to';
comment on column facts.prompt_topics.prompt_id is 'hash of the prompt';

comment on column facts.response_rewards.key is
    'content key of the product that the row belongs to';
comment on column facts.response_rewards.response_id is 'hash of prompt and response';
comment on column facts.response_rewards.dimension is 'the axis of preference';
comment on column facts.response_rewards.raw is 'as the reward model gave it';

comment on column facts.responses.key is 'content key of the product that the row belongs to';
comment on column facts.responses.response_id is 'hash of prompt and response';
comment on column facts.responses.prompt_id is 'hash of the prompt';
comment on column facts.responses.text is 'the response';

comment on column facts.reward_model_metrics.key is
    'content key of the product that the row belongs to';
comment on column facts.reward_model_metrics.dimension is 'the axis of preference';
comment on column facts.reward_model_metrics.metric is 'the name of the figure';
comment on column facts.reward_model_metrics.value is 'the figure';
comment on column facts.reward_model_metrics.low is '95 % interval, lower end';
comment on column facts.reward_model_metrics.high is '95 % interval, upper end';
comment on column facts.reward_model_metrics.n is
    'held-out pairs, without ties where winners are counted; of length_correlation, responses';

comment on column facts.reward_calibration.key is
    'content key of the product that the row belongs to';
comment on column facts.reward_calibration.dimension is 'the axis of preference';

comment on column facts.schema_version.version is 'of the base tables';
comment on column facts.schema_version.definitions is
    'hash of the SQL that made tables, views and comments';

comment on column facts.sliders.key is 'content key of the product that the row belongs to';
comment on column facts.sliders.method is 'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.sliders.dimension is 'the axis of preference';

comment on column facts.training_curves.key is 'content key of the product that the row belongs to';
comment on column facts.training_curves.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column facts.training_curves.step is 'optimiser step';
comment on column facts.training_curves.metric is 'the name of the figure';
comment on column facts.training_curves.value is 'the figure';

comment on column comparisons.problem is 'the alignment problem';
comment on column comparisons.method is 'the one';
comment on column comparisons.other is 'the other';
comment on column comparisons.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column comparisons.metric is
    'value_ratio, charged_hypervolume or expected_utility; more is better';
comment on column comparisons.difference is 'of the figure: method less other';
comment on column comparisons.low is '95 % interval, lower end';
comment on column comparisons.high is '95 % interval, upper end';
comment on column comparisons.verdict is
    'better or worse where the interval says so, else no difference shown';

comment on column front_points.problem is 'the alignment problem';
comment on column front_points.method is 'reference, panacea, a baseline, best_of_16, or optimum';
comment on column front_points.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column front_points.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column front_points.dimension is 'the axis of preference';
comment on column front_points.low is '95 % interval, lower end';
comment on column front_points.high is '95 % interval, upper end';
comment on column front_points.n is 'samples that it rests on';

comment on column gold_and_proxy.problem is 'the alignment problem';
comment on column gold_and_proxy.method is 'reference, panacea, a baseline, best_of_16';
comment on column gold_and_proxy.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column gold_and_proxy.kl is 'KL(π_λ‖π_ref), nats';
comment on column gold_and_proxy.gold is 'λ·E[r] by the true scores';
comment on column gold_and_proxy.proxy is 'λ·E[r] by the learned reward models';
comment on column gold_and_proxy.flattery is
    'proxy less gold: what the policy got out of the models’ mistakes';

comment on column label_quality.problem is 'the alignment problem';
comment on column label_quality.dimension is 'the axis of preference';

comment on column leaderboard.problem is 'the alignment problem';
comment on column leaderboard.method is 'reference, panacea, a baseline, best_of_16, or optimum';
comment on column leaderboard.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column leaderboard.igd_plus is
    'mean shortfall from the front of the optimum, KL charged; 0 is best';
comment on column leaderboard.expected_utility is
    'mean over λ of the best λ·J of any point, J = E[r] − β·KL';
comment on column leaderboard.max_utility_loss is
    'at the worst λ, how much less than the optimum the best point has';
comment on column leaderboard.steerability is
    'mean over dimensions of the rank correlation of λᵢ and rᵢ';
comment on column leaderboard.charged_regret is
    'mean over λ of what another λ would have served it better; 0 is best';
comment on column leaderboard.evenness is
    '1 where equal steps of λ are equal steps along the front; m ≤ 3';
comment on column leaderboard.sparsity is 'mean squared gap between neighbours on the front';
comment on column leaderboard.spacing is 'unevenness of those gaps; 0 is even';
comment on column leaderboard.steps is 'optimiser steps of all adapters together';
comment on column leaderboard.tokens is 'tokens trained on';
comment on column leaderboard.forwards_per_token is
    'forwards of the model for each token of an answer';
comment on column leaderboard.adapters is 'adapters that must be in memory';

comment on column pareto_front.problem is 'the alignment problem';
comment on column pareto_front.method is 'reference, panacea, a baseline, best_of_16, or optimum';
comment on column pareto_front.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column pareto_front.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column pareto_front.n is 'samples that it rests on';

comment on column preference_conflicts.problem is 'the alignment problem';
comment on column preference_conflicts.dimension_a is 'the one dimension';
comment on column preference_conflicts.dimension_b is 'the other';
comment on column preference_conflicts.disagreements is
    'pairs whose labels lie on opposite sides of a tie';

comment on column reward_model_quality.problem is 'the alignment problem';
comment on column reward_model_quality.dimension is 'the axis of preference';
comment on column reward_model_quality.accuracy is 'share of held-out pairs ordered as their label';
comment on column reward_model_quality.accuracy_low is '95 % Wilson interval, lower end';
comment on column reward_model_quality.accuracy_high is '95 % Wilson interval, upper end';
comment on column reward_model_quality.n is 'held-out pairs, ties left out';

comment on column reward_model_quality.length_only_difference_low is '95 % interval, lower end';
comment on column reward_model_quality.length_only_difference_high is '95 % interval, upper end';

comment on column reward_model_topics.problem is 'the alignment problem';
comment on column reward_model_topics.dimension is 'the axis of preference';
comment on column reward_model_topics.low is '95 % Wilson interval, lower end';
comment on column reward_model_topics.high is '95 % Wilson interval, upper end';
comment on column reward_model_topics.n is 'held-out pairs, ties left out';

comment on column reward_calibration.problem is 'the alignment problem';
comment on column reward_calibration.dimension is 'the axis of preference';

comment on column reward_correlations.problem is 'the alignment problem';
comment on column reward_correlations.dimension_a is 'the one dimension';
comment on column reward_correlations.dimension_b is 'the other';

comment on column reward_lengths.problem is 'the alignment problem';
comment on column reward_lengths.dimension is 'the axis of preference';

comment on column ruler.problem is 'the alignment problem';
comment on column ruler.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column ruler.effective_samples is
    'what the importance weights leave of them at the worst λ';
comment on column ruler.points_refused is
    'λ whose optimal rewards are not shown, as too few are effective';
comment on column ruler.samples_needed is 'about how many a prompt would do at every λ';
comment on column ruler.samples is 'reference samples a prompt';

comment on column runs.problem is 'the alignment problem';
comment on column runs.stage is 'the asset';
comment on column runs.key is 'content key of the product that the row belongs to';
comment on column runs.created_at is 'UTC';
comment on column runs.seconds is 'time it took to make';
comment on column runs.seed is 'of all draws';

comment on column sample_responses.problem is 'the alignment problem';
comment on column sample_responses.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column sample_responses.point is
    'position of λ on the grid; -1 where the answers serve every λ';
comment on column sample_responses.prompt is 'the held-out prompt';
comment on column sample_responses.response is 'the answer';
comment on column sample_responses.judge is
    'who gave the rewards: gold (true scores, embedded world only) or proxy (learned)';
comment on column sample_responses.sample is
    'number of the answer among those to one prompt under one λ';
comment on column sample_responses.prompt_id is 'hash of the prompt';
comment on column sample_responses.generation_id is 'hash of method, point, prompt and sample';

comment on column training_curves.problem is 'the alignment problem';
comment on column training_curves.stage is 'the asset';
comment on column training_curves.part is
    'a dimension, a method, or empty for a stage in one piece';
comment on column training_curves.method is
    'reference, panacea, a baseline, best_of_16, or optimum';
comment on column training_curves.step is 'optimiser step';
comment on column training_curves.metric is 'the name of the figure';
comment on column training_curves.value is 'the figure';

comment on column facts.annotations.key is 'content key of the product that the row belongs to';
comment on column facts.annotations.pair_id is 'hash of prompt and responses';
comment on column facts.annotations.dimension is 'the axis of preference';
comment on column facts.annotations.reason is 'why it failed';

comment on column facts.label_costs.key is 'content key of the product that the row belongs to';
comment on column facts.label_costs.dimension is 'the axis of preference';
comment on column facts.label_costs.source is 'judge';
comment on column facts.label_costs.annotator is 'which judge';

comment on column facts.label_agreement.key is 'content key of the product that the row belongs to';
comment on column facts.label_agreement.dimension is 'the axis of preference';

comment on column label_agreement.problem is 'the alignment problem';
comment on column label_agreement.dimension is 'the axis of preference';

comment on column label_costs.problem is 'the alignment problem';
comment on column label_costs.dimension is 'the axis of preference';
comment on column label_costs.source is 'judge';
comment on column label_costs.annotator is 'which judge';
comment on column label_costs.requests is 'sent when the product was made';
comment on column label_costs.cached is 'answers that had been paid for before';
comment on column label_costs.failed is 'requests without a usable answer';
comment on column label_costs.input_tokens is 'of all answers, whenever they were paid for';
comment on column label_costs.output_tokens is 'of all answers, whenever they were paid for';
comment on column label_costs.cost is 'by the prices of the problem; null without';

comment on column label_sources.problem is 'the alignment problem';
comment on column label_sources.dimension is 'the axis of preference';
comment on column label_sources.source is 'data, world, people, judge, model or rule';

comment on column position_bias.problem is 'the alignment problem';
comment on column position_bias.dimension is 'the axis of preference';
comment on column position_bias.annotator is 'which judge';

comment on column source_agreement.problem is 'the alignment problem';
comment on column source_agreement.dimension is 'the axis of preference';
