import openai
import subprocess

def ai_code_generation_loop(prompt, iterations=10):
    for i in range(iterations):
        # 使用OpenAI生成
        response = openai.ChatCompletion.create(
            model="gpt-4",
            messages=[{"role": "user", "content": prompt}]
        )
        
        # 保存和版本控制
        with open("generated.py", "w") as f:
            f.write(response.choices[0].message.content)
        
        # 快速提交
        subprocess.run([
            "helios", "commit", "--work", "."
        ])
        
        # 测试并可能回滚
        if not run_tests():
            subprocess.run(["helios", "reset", "--hard", "HEAD~1"])
