"""The settings of a run that trains in seconds."""

SMALL = (
    "data.num_bars=1500",
    "env.window=4",
    "env.episode_steps=64",
    "env.features={log_return:true,ema_10:true}",
    "agent.num_envs=16",
    "agent.rollout_steps=16",
    "agent.num_minibatches=2",
    "agent.hidden_sizes=[16]",
    "total_steps=6144",
)
