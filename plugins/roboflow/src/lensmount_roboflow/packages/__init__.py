"""Model packages of Roboflow's inference-models: folders with a `model_config.json`, read as `ModelCard`s.

`folder` reads a folder, `config` maps the contents of its files (which the provider's downloads share), `schema`
holds the files' forms and is the only module here that needs pydantic.
"""
