"""What the meeting page says, in every language that it knows: one table of sentences each, with the same keys and fields."""

from __future__ import annotations

from polygraft.poc.reasons_ja import REASONS_JA

EN = {
    "title": "{language}: the decision", "skip": "Skip to the numbers", "numbers": "The numbers",
    "caveats": "What to keep in mind", "target": "{language}", "english": "English", "other": "other languages",
    "fidelity": "answering in the language", "copy": "copying names and numbers", "refusal": "refusing to answer",
    "spent": "making it", "serving": "serving it", "touched": "weights changed", "obliges": "licences",
    "absent": "These were not tried:", "yes_no": "{method}: {status}",
    "how_to_read": "A change is the method minus doing nothing on the same items, with its 95 % interval. Each number in a "
                   "sentence leads to its place in the table; each change in the table leads to its step in the report.",
    "stage": "Stage: {stage}. Compared with doing nothing, which means {reference}.",
    "smoke": "smoke test", "pilot": "pilot", "full": "full run", "better": "better", "worse": "worse",
    "not distinguishable": "not distinguishable", "unsure": "no verdict", "adopt": "Recommendation: {method}.",
    "keep": "Recommendation: change nothing. No method beat doing nothing.",
    "undecided": "No recommendation yet.",
    "gain": "In {language}, {method} changed {measure} by {change}.",
    "scores": "In {language}, {method} changed {measure} from {before} to {after}, that is by {change}.",
    "best": "The largest change in {language} was by {method}: {change}.",
    "english_change": "In English it changed {changes}.",
    "others": "In other languages, {worse} of {count} measures are worse, {better} better and {even} not distinguishable; the "
              "least favourable is {measure}: {change}.",
    "risk": "A risk to know: {changes}.",
    "no_risk": "Of the risks that were measured, none shows a loss: {changes}.",
    "unmeasured": "Not measured: {names}.",
    "not_excluded": "A loss beyond what is tolerated is not excluded in: {changes}.",
    "made": "Making it took {spent} and changed {touched} of the weights.",
    "made_only": "Making it took {spent}.", "served": "Serving it: {serving}; today: {today}.",
    "licences": "What the licences oblige to: {told}",
    "rests": "This rests on {n} items; a change of less than about {detectable} would not have shown.",
    "rests_plain": "This rests on {n} items.",
    "next_smoke": "Next: the pilot stage. The smoke test shows that methods run, not what they are worth.",
    "next_pilot": "Next: the full run, whose intervals are narrower.",
    "change": "{value} ({interval}), {verdict}", "change_plain": "{value}, {verdict}", "of_measure": "{measure} by {change}",
    "tokens": "{n} training tokens", "per_token": "{size} read a token", "per_character": "{n} tokens a character",
    "stored": "{size} stored", "per_million": "{money} for a million characters", "and": ", ", "in_table": "{measure}: {change}",
    "by_language": "{measure} ({language})", "metric_of": "{metric} of {task}",
}  # fmt: skip
JA = {
    "title": "{language}：導入の判断", "skip": "数値へ移動", "numbers": "数値", "caveats": "留意点", "target": "{language}",
    "english": "英語", "other": "他の言語", "fidelity": "対象言語での回答", "copy": "名前と数値の転記", "refusal": "回答拒否",
    "licences": "ライセンス上の義務：{told}", "spent": "作成コスト", "serving": "運用コスト", "touched": "変更した重み",
    "obliges": "ライセンス", "absent": "次の手法は試していません。", "yes_no": "{method}：{status}",
    "how_to_read": "変化は、同じ項目での「手法 − 何もしない場合」の差で、95 % 区間を添えています。文中の数値は表の該当箇所へ、"
                   "表の変化は報告書の該当ステップへリンクしています。",
    "stage": "段階：{stage}。比較対象は「何もしない場合」（{reference}）です。",
    "smoke": "動作確認", "pilot": "試行", "full": "本実施", "better": "改善", "worse": "悪化",
    "not distinguishable": "差があるとは言えない", "unsure": "判定なし", "adopt": "推奨：{method}の採用。",
    "keep": "推奨：変更しない。何もしない場合を上回る手法はありませんでした。",
    "undecided": "まだ推奨できるものはありません。",
    "gain": "{language}では、{method}により{measure}が {change} 変化しました。",
    "scores": "{language}では、{method}により{measure}が {before} から {after} になりました（変化 {change}）。",
    "best": "{language}で変化が最も大きかったのは{method}です（{change}）。",
    "english_change": "英語での変化：{changes}。",
    "others": "他の言語では、{count} 指標のうち悪化 {worse}、改善 {better}、差があるとは言えないもの {even} で、"
              "最も不利な指標は{measure}です（{change}）。",
    "risk": "把握しておくべきリスク：{changes}。",
    "no_risk": "測定したリスクの中に、悪化を示すものはありません：{changes}。",
    "unmeasured": "測定していないもの：{names}。",
    "not_excluded": "許容範囲を超える損失の可能性が残るもの：{changes}。",
    "made": "作成には {spent} を要し、重みの {touched} が変わりました。",
    "made_only": "作成に要したもの：{spent}。", "served": "運用：{serving}。現状：{today}。",
    "rests": "以上は {n} 項目に基づきます。約 {detectable}より小さい変化は検出できなかった可能性があります。",
    "rests_plain": "以上は {n} 項目に基づきます。",
    "next_smoke": "次の段階は試行です。動作確認で分かるのは手法が動くことであり、その価値ではありません。",
    "next_pilot": "次の段階は、区間がより狭くなる本実施です。", "change": "{value}（{interval}）、{verdict}",
    "change_plain": "{value}、{verdict}", "of_measure": "{measure} {change}", "tokens": "学習 {n} トークン",
    "per_token": "1 トークンあたり {size} の読み込み", "per_character": "1 文字あたり {n} トークン", "stored": "保存サイズ {size}",
    "per_million": "100 万文字あたり {money}", "and": "、", "in_table": "{measure}：{change}",
    "by_language": "{measure}（{language}）", "metric_of": "{task}の{metric}",
}  # fmt: skip
# What became of a method, by `decision.STATUSES`.
STATUSES = {
    "en": {
        "nothing": "as it is today", "gains": "better, nothing lost", "loses": "better, but loses elsewhere",
        "saves": "cheaper, no loss shows", "even": "not distinguishable", "worse": "worse", "unmeasured": "not measured",
        "failed": "failed", "dropped": "set aside", "absent": "does not apply",
    },
    "ja": {
        "nothing": "現状のまま", "gains": "改善、損失なし", "loses": "改善したが他で損失", "saves": "低コスト、損失は見られない",
        "even": "差があるとは言えない", "worse": "悪化", "unmeasured": "未測定", "failed": "失敗", "dropped": "前段階で除外",
        "absent": "適用外",
    },
}  # fmt: skip
METHODS_JA = {
    "nothing": "何もしない", "swap": "層の入れ替え（Layer swap）", "slam": "SLAM", "neurons": "ニューロン行の学習",
    "lep": "新しい語彙（LEP）", "prune": "校正付き枝刈り", "steer": "ステアリング",
}  # fmt: skip
# Words that measures are named by: tasks of a proof of concept, and metrics.
NAMES = {
    "en": {
        "target": "your evaluation", "problems": "word problems", "bpb": "text", "continue": "continued texts",
        "copy": "copied sentences",
    },
    "ja": {
        "target": "貴社の評価", "problems": "文章題", "bpb": "テキスト", "continue": "続きを書かせたテキスト",
        "copy": "転記させた文", "accuracy": "正解率", "exact match": "完全一致率", "bits per byte": "1 バイトあたりのビット数",
        "language fidelity": "対象言語で答えた割合", "refusal": "回答拒否率", "copy characters": "転記の文字一致率",
    },
}  # fmt: skip
WORDS = {"en": EN, "ja": JA}
REASONS = {"ja": REASONS_JA}
